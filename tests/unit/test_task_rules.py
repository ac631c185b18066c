"""Tasks use what their own role registered, and no privileges on the control node."""

import pytest
from jinja2 import nodes

from tests.kit.ansible_files import JINJA, ROLES, items, plays, tasks, templates

# Jinja warns of '\\s', which is valid in Ansible's templates.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

TASKS = tasks()
PLAYS = plays()
SET_FACT = "ansible.builtin.set_fact"


def names(file):
    """Return the variables that a file's expressions use."""
    return {
        name.name for _, template in templates(file) for name in JINJA.parse(template).find_all(nodes.Name)
    }


def outputs(file):
    """Yield the variables that a file's tasks register or set."""
    for task in items(file):
        yield from [task.item["register"]] if "register" in task.item else []
        yield from task.item.get(SET_FACT) or []


def role_files(role, *folders):
    return sorted(
        file for folder in folders for file in (role / folder).glob("*") if file.suffix in (".yml", ".j2")
    )


OUTPUTS = {
    role.name: {name for file in role_files(role, "tasks", "handlers") for name in outputs(file)}
    for role in ROLES
}


def test_outputs_and_plays_are_found():
    assert sum(map(len, OUTPUTS.values())) > 40
    assert len(PLAYS) > 25


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_needs_no_variable_that_another_role_outputs(role):
    """With --tags one role of several runs."""
    used = {
        name
        for file in role_files(role, "tasks", "handlers", "vars", "defaults", "templates")
        for name in names(file)
    }
    elsewhere = {name for other, found in OUTPUTS.items() if other != role.name for name in found}
    assert not used & (elsewhere - OUTPUTS[role.name])
    assert not [name for name in used if name.startswith("__") and not name.startswith(f"__{role.name}_")]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_registered_variables_carry_the_role_s_name(role):
    """A fact without the underscores is an output for playbooks."""
    strays = [
        name
        for file in role_files(role, "tasks", "handlers")
        for task in items(file)
        for name in [task.item.get("register", f"__{role.name}_"), *(task.item.get(SET_FACT) or [])]
        if not name.startswith(f"__{role.name}_")
        and not (name in (task.item.get(SET_FACT) or []) and name.startswith(f"{role.name}_"))
    ]
    assert not strays


SHARED_HANDLERS = [
    file
    for role in ROLES
    for file in role_files(role, "handlers")
    if any("listen" in t.item for t in items(file))
]


@pytest.mark.parametrize("file", SHARED_HANDLERS, ids=lambda file: file.parents[1].name)
def test_a_handler_that_other_roles_notify_needs_no_task_of_its_role(file):
    """It listens to a topic: --tags origin_certificate reloads nginx without any task of role nginx."""
    role = file.parents[1].name
    assert not names(file) & (OUTPUTS[role] - set(outputs(file)))


LOCAL = [
    task
    for task in TASKS
    if task.item.get("delegate_to", "{{") != "{{ inventory_hostname }}" and "delegate_to" in task.item
]


@pytest.mark.parametrize("task", LOCAL, ids=str)
def test_a_task_on_the_control_node_uses_no_privileges(task):
    """-b and ansible_become are for servers; an operator may not be root on the control node."""
    assert task.item["delegate_to"] == "localhost", "name the host"
    assert task.item.get("become") is False


def is_local(play):
    hosts = str(play.item["hosts"]).split(":")
    return bool({"edge", "localhost", "all"} & set(hosts)) or play.item.get("connection") == "local"


@pytest.mark.parametrize("play", list(filter(is_local, PLAYS)), ids=str)
def test_a_play_on_the_control_node_uses_no_privileges(play):
    assert play.item.get("become") is False


def test_no_task_of_such_a_play_becomes_root():
    inside = [task for task in TASKS if task.around and task.around[0].get("become") is False]
    assert inside
    assert not [str(task) for task in inside if task.item.get("become")]
