"""The runbook's tests run over a whole site that is up: the demo's, or molecule's default scenario's."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if "SITE_URL" not in os.environ:
        for item in items:
            item.add_marker(
                pytest.mark.skip(reason="SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`")
            )
