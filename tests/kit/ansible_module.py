"""Ansible modules run in the test's own process."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


def run_module(
    module: ModuleType, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], check: bool = False
) -> dict[str, Any]:
    """Run a module with its arguments and return its result, a failure's included."""
    with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def warnings(result: dict[str, Any]) -> str:
    """Return a result's warnings as one text."""
    return " ".join(warning["event"]["msg"] for warning in result.get("warnings", []))
