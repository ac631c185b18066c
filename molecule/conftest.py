"""The only file that uses testinfra: the tests of every scenario take `host` from here."""

import os

import pytest
import testinfra
from testinfra.host import Host


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the scenario's server, reached through the engine, which also works without SSH."""
    return testinfra.get_host(f"docker://{os.environ['TESTBED_NAME']}-origin")
