"""no_log also hides why a task fails, so it is set where a secret could show and nowhere else."""

import pytest
import yaml

from tests.kit.ansible_files import tasks

SECRET = ("secret", "password", "key", "token", "vault", "session", "cookie")


def content(task):
    """Return the task's YAML without its name and no_log."""
    return yaml.dump({key: value for key, value in task.item.items() if key not in ("name", "no_log")})


def reveals(task):
    """Return whether the task's result or arguments contain a secret.

    A slurp returns the file's content; a generated or given secret is an argument.
    """
    text = content(task)
    generates = "__app_stack_new_secret" in text or "ansible.builtin.password" in text
    return generates or ("slurp" in text and "secret" in text)


TASKS = [task for task in tasks() if "block" not in task.item]
HIDDEN = [task for task in TASKS if task.item.get("no_log")]
REVEALING = [task for task in TASKS if reveals(task)]


@pytest.mark.parametrize("task", HIDDEN, ids=str)
def test_no_log_is_set_only_where_a_secret_could_show(task):
    assert any(word in content(task).lower() for word in SECRET)


@pytest.mark.parametrize("task", REVEALING, ids=str)
def test_no_log_is_set_where_a_secret_shows(task):
    assert task.item.get("no_log") is True
