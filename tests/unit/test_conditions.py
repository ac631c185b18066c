"""A condition is a boolean, and a switch or number works as text too, which is how -e gives it.

ansible-core 2.19 refuses a condition of any other type, and only the user who gives such a value meets it.
"""

import pytest
from jinja2 import nodes

from tests.kit.ansible_files import (
    CONDITIONS,
    JINJA,
    PROJECT,
    ROLES,
    expression,
    files,
    is_condition,
    items,
    load,
    playbooks,
    plays,
    tasks,
    templates,
)

# Jinja warns of '\\s', which Ansible's templates write as they are.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")


def registered(file):
    """The variables that this file's role, or this playbook, registers."""
    role = PROJECT / "roles" / file.relative_to(PROJECT).parts[1]
    known = [*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")] or [file]
    return {task.item["register"] for one in known for task in items(one) if "register" in task.item}


def certainly_boolean(node, known):
    """Whether an expression can only be a boolean; `known` are the registered variables.

    `and` and `or` return one of their operands. Of what modules return, `ok` and `stat.exists` count.
    """
    match node:
        case nodes.Compare() | nodes.Not() | nodes.Test() | nodes.Filter(name="bool"):
            return True
        case nodes.And() | nodes.Or():
            return certainly_boolean(node.left, known) and certainly_boolean(node.right, known)
        case nodes.Const(value=bool()) | nodes.Name(name="ansible_check_mode"):
            return True
        case (
            nodes.Getattr(node=nodes.Name(name=name), attr="ok")
            | nodes.Getattr(node=nodes.Getattr(node=nodes.Name(name=name), attr="stat"), attr="exists")
        ):
            return name in known
    return False


def conditions():
    for task in [*plays(), *tasks()]:
        roles = [role for role in task.item.get("roles") or [] if isinstance(role, dict)]
        applied = [value.get("apply") or {} for value in task.item.values() if isinstance(value, dict)]
        found = [one[name] for one in (task.item, *roles, *applied) for name in CONDITIONS if name in one]
        if "ansible.builtin.assert" in task.item:
            found.append(task.item["ansible.builtin.assert"]["that"])
        for given in found:
            for condition in given if isinstance(given, list) else [given]:
                yield pytest.param(task.file, str(condition), id=f"{task}: {condition}")


ALL = list(conditions())


def test_conditions_are_found():
    assert len(ALL) > 150


@pytest.mark.parametrize("file, condition", ALL)
def test_a_condition_is_a_boolean(file, condition):
    boolean = certainly_boolean(expression("{{ " + condition + "\n}}"), registered(file))
    assert boolean, "add | bool, or compare: | length > 0"


@pytest.mark.parametrize(
    "condition, certain",
    [
        ("app_stack_image_archives and x | length < 2", False),
        ("app_stack_image_archives | length > 0 and x | length < 2", True),
        ("origin_firewall_enabled", False),
        ("origin_firewall_enabled | bool", True),
        ("not origin_firewall_enabled", True),
        ("x | default(false)", False),
        ("a == b or c", False),
        ("__there.stat.exists and not ansible_check_mode", True),
        ("elsewhere.stat.exists", False),
        ("__there.drift", False),
    ],
)
def test_what_counts_as_a_boolean(condition, certain):
    assert certainly_boolean(expression("{{ " + condition + " }}"), {"__there"}) is certain


def type_of(option):
    return f"{option['elements']}s" if option["type"] == "list" else option["type"]


NUMBER = {"int", "float", "printed"}  # printed in a text, a number is what was written
# What may become of an input, by its type.
RIGHT = {
    "bool": {"bool"},
    "int": NUMBER,
    "float": NUMBER,
    "ints": NUMBER | {"join", "length"},
}
TYPES = {
    name: type_of(option)
    for role in ROLES
    for entry in load(role / "meta/argument_specs.yml")["argument_specs"].values()
    for name, option in entry["options"].items()
    if type_of(option) in RIGHT
}


def becomes(node, around):
    """What an input at the end of `around` becomes: a filter's name, `printed`, or None for any other use."""
    for parent in around[::-1]:
        match parent:
            case nodes.Output():
                return "printed"
            case nodes.Filter(name="map", args=[nodes.Const(value=name)]) if parent.node is node:
                return name
            case nodes.Filter(name=name) if parent.node is node and name != "default":
                return name
            case nodes.List() | nodes.Filter(name="default"):
                node = parent
            case _:
                return None
    return None


def wrong_uses(template, whole_is_right):
    """Return the switches and numbers of which a template makes something else."""
    tree = JINJA.parse(template)
    whole = len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) and len(tree.body[0].nodes) == 1
    wrong, stack = [], [(tree, ())]
    while stack:
        node, around = stack.pop()
        stack += [(child, (*around, node)) for child in node.iter_child_nodes()]
        if isinstance(node, nodes.Name) and node.name in TYPES:
            made = becomes(node, around)
            right = whole_is_right if whole and made == "printed" else made in RIGHT[TYPES[node.name]]
            wrong += [] if right else [node.name]
    return wrong


def takes_whole(file, path):
    """Whether what reads this turns it into its type, as a module's parameter and a role's input do."""
    if file.suffix == ".j2":
        return False
    if file.parent.name in ("vars", "defaults"):
        return path[0] in TYPES
    if "vars" in path[:-1]:
        return path[path.index("vars") + 1] in TYPES
    return not is_condition(path)


EVALUATED = [
    *files("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "roles/*/vars/*.yml", "roles/*/defaults/*.yml"),
    *files("roles/*/templates/*.j2", "inventories/**/*.yml", "playbooks/group_vars/**/*.yml"),
    *playbooks(),
]


def test_inputs_are_found():
    assert len(TYPES) > 60


@pytest.mark.parametrize("file", EVALUATED, ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_switch_or_number_is_used_as_what_it_is(file):
    wrong = [
        f"{'.'.join(map(str, path))}: {name}"
        for path, template in templates(file)
        for name in wrong_uses(template, takes_whole(file, path))
    ]
    assert not wrong, "add | bool, | int or | float"


@pytest.mark.parametrize(
    "template, right",
    [
        ("{{ nginx_worker_connections * 2 }}", False),
        ("{{ nginx_worker_connections | int * 2 }}", True),
        ("{{ (nginx_worker_connections * 2) | int }}", False),
        ("{{ 2 | default(nginx_worker_connections) + 1 }}", False),
        ("{% if nginx_hsts_max_age %}x{% endif %}", False),
        ("max-age={{ nginx_hsts_max_age }}", True),
        ("{{ [nginx_upload_rate, nginx_handshake_rate] | map('int') | min }}", True),
        ("{{ [nginx_upload_rate, nginx_handshake_rate] | min }}", False),
        ("{{ nginx_port_https | default(443) | int + 1 }}", True),
        ("{{ 'on' if nginx_proxy_buffering else 'off' }}", False),
        ("{{ nginx_proxy_buffering | bool | ternary('on', 'off') }}", True),
        ("buffering {{ nginx_proxy_buffering }}", False),
        ("{{ origin_firewall_edge_ports | reject('in', [80]) }}", False),
        ("{{ origin_firewall_edge_ports | map('int') | reject('in', [80]) }}", True),
    ],
)
def test_what_counts_as_used_as_what_it_is(template, right):
    assert (not wrong_uses(template, whole_is_right=False)) is right
