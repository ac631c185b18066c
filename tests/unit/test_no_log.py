"""no_log hides what fails, so it stands where a secret could show and nowhere else."""

from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
SECRET = ("secret", "password", "key", "token", "vault", "session", "cookie")


class Loader(yaml.SafeLoader):
    """Takes Ansible's own tags as text."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))


def tasks():
    files = [
        *PROJECT.glob("roles/*/tasks/*.yml"),
        *PROJECT.glob("playbooks/*.yml"),
        *PROJECT.glob("playbooks/tasks/*.yml"),
    ]
    stack = [(file, item) for file in files for item in yaml.load(file.read_text(), Loader) or []]
    while stack:
        file, item = stack.pop()
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks"):
            stack += [(file, inner) for inner in item.get(part) or []]
        if not {"block", "hosts", "import_playbook"} & item.keys():
            yield pytest.param(item, id=f"{file.relative_to(PROJECT)}: {item.get('name')}")


TASKS = list(tasks())


def test_tasks_are_found():
    assert len(TASKS) > 50


@pytest.mark.parametrize("task", TASKS)
def test_no_log_where_a_secret_could_show(task):
    text = yaml.dump({name: value for name, value in task.items() if name not in ("name", "no_log")})
    if task.get("no_log"):
        assert any(word in text.lower() for word in SECRET), "hides nothing"
    # A slurp returns the content; a generated or given secret is an argument.
    makes = "__app_stack_new_secret" in text or "ansible.builtin.password" in text
    if makes or ("slurp" in task and "secret" in text):
        assert task.get("no_log") is True, "shows a secret"
