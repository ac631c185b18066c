"""nginx's fixtures: converging again with other variables."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.playbook import Run, run_playbook


@pytest.fixture(scope="session")
def converge() -> Callable[..., Run]:
    """Return converge(check=True, **variables), which runs the scenario's playbook again."""

    def call(check: bool = True, **variables: Any) -> Run:
        run = run_playbook("molecule/nginx/converge.yml", **variables)
        assert run.returncode == 0 or not check, run.stdout + run.stderr
        return run

    return call
