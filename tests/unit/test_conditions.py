"""A condition is a boolean, and a boolean or number given as text, as by -e, works as well.

ansible-core 2.19 refuses a condition of any other type, which only shows for the user who sets such a value.
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

# Jinja warns of '\\s', which is valid in Ansible's templates.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")


def registered(file):
    """Return the variables that this file's role, or this playbook, registers."""
    role = PROJECT / "roles" / file.relative_to(PROJECT).parts[1]
    known = [*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")] or [file]
    return {task.item["register"] for one in known for task in items(one) if "register" in task.item}


def is_boolean(node, known):
    """Return whether an expression can only be a boolean; `known` are the registered variables.

    `and` and `or` return one of their operands. Of modules' results, `ok` and `stat.exists` are booleans.
    """
    match node:
        case nodes.Compare() | nodes.Not() | nodes.Test() | nodes.Filter(name="bool"):
            return True
        case nodes.And() | nodes.Or():
            return is_boolean(node.left, known) and is_boolean(node.right, known)
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
    boolean = is_boolean(expression("{{ " + condition + "\n}}"), registered(file))
    assert boolean, "add | bool, or compare: | length > 0"


@pytest.mark.parametrize(
    "condition, boolean",
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
def test_which_expressions_count_as_boolean(condition, boolean):
    assert is_boolean(expression("{{ " + condition + " }}"), {"__there"}) is boolean


def type_of(option):
    return f"{option['elements']}s" if option["type"] == "list" else option["type"]


NUMBER = {"int", "float", "printed"}  # printed in a text, a number stays as it was given
# The uses that an input's type allows.
ALLOWED = {
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
    if type_of(option) in ALLOWED
}


def use_of(node, around):
    """Return the use of an input at the end of `around`: a filter's name, `printed`, or None for others."""
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


def wrong_uses(template, whole_is_allowed):
    """Return the booleans and numbers that a template uses as text."""
    tree = JINJA.parse(template)
    whole = len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) and len(tree.body[0].nodes) == 1
    wrong, stack = [], [(tree, ())]
    while stack:
        node, around = stack.pop()
        stack += [(child, (*around, node)) for child in node.iter_child_nodes()]
        if isinstance(node, nodes.Name) and node.name in TYPES:
            use = use_of(node, around)
            right = whole_is_allowed if whole and use == "printed" else use in ALLOWED[TYPES[node.name]]
            wrong += [] if right else [node.name]
    return wrong


def is_converted(file, path):
    """Return whether the value is converted to its type, as a module's parameter and a role's input are."""
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
def test_booleans_and_numbers_are_used_as_such(file):
    wrong = [
        f"{'.'.join(map(str, path))}: {name}"
        for path, template in templates(file)
        for name in wrong_uses(template, is_converted(file, path))
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
def test_which_uses_count_as_such(template, right):
    assert (not wrong_uses(template, whole_is_allowed=False)) is right
