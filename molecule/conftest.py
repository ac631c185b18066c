"""The one place that knows testinfra: every scenario's tests take `host` from here."""

import os

import pytest
import testinfra
from testinfra.host import Host


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the scenario's server, reached through the engine: that works also when its ssh does not."""
    return testinfra.get_host(f"docker://{os.environ['TESTBED_NAME']}-origin")
