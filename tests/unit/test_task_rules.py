"""What a task may lean on: what its own role found out, and on the control node no privileges."""

import pytest
from jinja2 import nodes

from tests.kit.ansible_files import JINJA, ROLES, items, plays, tasks, templates

# Jinja warns of '\\s', which Ansible's templates write as they are.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

TASKS = tasks()
PLAYS = plays()
SET_FACT = "ansible.builtin.set_fact"


def names(file):
    """The variables that a file's expressions use."""
    return {
        name.name for _, template in templates(file) for name in JINJA.parse(template).find_all(nodes.Name)
    }


def found_out(file):
    """The variables that a file's tasks register or set."""
    for task in items(file):
        yield from [task.item["register"]] if "register" in task.item else []
        yield from task.item.get(SET_FACT) or []


def role_files(role, *folders):
    return sorted(
        file for folder in folders for file in (role / folder).glob("*") if file.suffix in (".yml", ".j2")
    )


FOUND_OUT = {
    role.name: {name for file in role_files(role, "tasks", "handlers") for name in found_out(file)}
    for role in ROLES
}


def test_there_is_something_to_look_at():
    assert sum(map(len, FOUND_OUT.values())) > 40
    assert len(PLAYS) > 25


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_needs_no_variable_that_another_role_found_out(role):
    """--tags runs one role of several."""
    used = {
        name
        for file in role_files(role, "tasks", "handlers", "vars", "defaults", "templates")
        for name in names(file)
    }
    elsewhere = {name for other, found in FOUND_OUT.items() if other != role.name for name in found}
    assert not used & (elsewhere - FOUND_OUT[role.name])
    assert not [name for name in used if name.startswith("__") and not name.startswith(f"__{role.name}_")]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_a_role_registers_is_its_own(role):
    """A fact without the underscores is an output, for playbooks."""
    strays = [
        name
        for file in role_files(role, "tasks", "handlers")
        for task in items(file)
        for name in [task.item.get("register", f"__{role.name}_"), *(task.item.get(SET_FACT) or [])]
        if not name.startswith(f"__{role.name}_")
        and not (name in (task.item.get(SET_FACT) or []) and name.startswith(f"{role.name}_"))
    ]
    assert not strays


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_handler_that_others_notify_needs_no_task_of_its_role(role):
    """It listens to a topic: --tags origin_certificate reloads nginx without any task of role nginx."""
    for file in role_files(role, "handlers"):
        topics = any("listen" in task.item for task in items(file))
        assert not topics or not names(file) & (FOUND_OUT[role.name] - set(found_out(file)))


LOCAL = [
    task
    for task in TASKS
    if task.item.get("delegate_to", "{{") != "{{ inventory_hostname }}" and "delegate_to" in task.item
]


@pytest.mark.parametrize("task", LOCAL, ids=str)
def test_a_task_on_the_control_node_asks_for_no_privileges(task):
    """-b and ansible_become are for the servers; the operator need not be able to become root at home."""
    assert task.item["delegate_to"] == "localhost", "name the host, so that its privileges can be seen"
    assert task.item.get("become") is False


@pytest.mark.parametrize("play", PLAYS, ids=str)
def test_a_play_on_the_control_node_asks_for_no_privileges(play):
    hosts = str(play.item["hosts"]).split(":")
    local = {"edge", "localhost", "all"} & set(hosts) or play.item.get("connection") == "local"
    assert not local or play.item.get("become") is False


def test_no_task_becomes_root_inside_such_a_play():
    inside = [task for task in TASKS if task.around and task.around[0].get("become") is False]
    assert inside
    assert not [str(task) for task in inside if task.item.get("become")]


APT = [task for task in TASKS if "ansible.builtin.apt" in task.item and "roles" in task.file.parts]


@pytest.mark.parametrize("task", APT, ids=str)
def test_apt_removes_nothing_and_waits_for_its_lock(task):
    """A new server's first upgrades hold the lock for minutes."""
    arguments = task.item["ansible.builtin.apt"]
    assert arguments["lock_timeout"] == 600
    assert arguments["fail_on_autoremove"]
