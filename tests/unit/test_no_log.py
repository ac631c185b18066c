"""no_log also hides why a task fails, so it is set where a secret could show and nowhere else."""

import re

import pytest
import yaml

from tests.kit.ansible_files import ROLES, load, tasks

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


# A role's input whose value is a secret; a file's path, a size or a URL is none.
SECRET_INPUT = re.compile(r".*_(password|token|secret|key|session|cookie|credentials)(_value)?")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_inputs_that_are_secrets_and_no_others_are_hidden(role):
    """Ansible shows the value of any other input when its type is wrong."""
    for specification in load(role / "meta/argument_specs.yml")["argument_specs"].values():
        inputs = specification.get("options") or {}
        # Where choices are given, the value names a secret and is none.
        secrets = {
            name
            for name, option in inputs.items()
            if SECRET_INPUT.fullmatch(name) and option["type"] == "str" and "choices" not in option
        }
        assert {name for name, option in inputs.items() if option.get("no_log")} == secrets
