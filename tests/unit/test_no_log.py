"""no_log hides what fails, so it stands where a secret could show and nowhere else."""

import pytest
import yaml

from tests.kit.ansible_files import tasks

SECRET = ("secret", "password", "key", "token", "vault", "session", "cookie")
TASKS = [task for task in tasks() if "block" not in task.item]


def test_tasks_are_found():
    assert len(TASKS) > 50


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_no_log_where_a_secret_could_show(task):
    task = task.item
    text = yaml.dump({name: value for name, value in task.items() if name not in ("name", "no_log")})
    if task.get("no_log"):
        assert any(word in text.lower() for word in SECRET), "hides nothing"
    # A slurp returns the content; a generated or given secret is an argument.
    makes = "__app_stack_new_secret" in text or "ansible.builtin.password" in text
    if makes or ("slurp" in task and "secret" in text):
        assert task.get("no_log") is True, "shows a secret"
