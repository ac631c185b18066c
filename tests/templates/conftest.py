"""Renders a role's templates with no host: Ansible's own templar, the role's own defaults."""

import pytest

from tests.ansible_files import PROJECT, rendered


@pytest.fixture
def render():
    """Return render(role, template, **variables): the text; an undefined variable raises."""

    def call(role: str, template: str, **variables) -> str:
        return rendered(PROJECT / "roles" / role, template, **variables)

    return call
