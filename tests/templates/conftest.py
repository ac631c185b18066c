from pathlib import Path

import pytest

from tests.kit.templates import rendered

ROLES = Path(__file__).parents[2] / "roles"


@pytest.fixture
def render():
    """Return render(role, template, **variables): the text; an undefined variable raises."""

    def call(role: str, template: str, **variables) -> str:
        return rendered(ROLES / role, template, **variables)

    return call
