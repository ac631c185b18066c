"""Fixtures of all scenarios. The one place that uses testinfra: its tests take `host` from here."""

import os
from collections.abc import Iterator

import pytest
import testinfra
from testinfra.host import Host

from tests.kit.control import EmulatorControl
from tests.kit.site import resolve_localhost
from tests.kit.testbed import LocalClient, running


@pytest.fixture(scope="session")
def host() -> Host:
    """The scenario's server, reached through the engine, which works without SSH, too."""
    return testinfra.get_host(f"docker://{os.environ['TESTBED_NAME']}-origin")


@pytest.fixture(scope="session")
def control() -> EmulatorControl:
    """The control API of the scenario's emulated Cloudflare."""
    return EmulatorControl(f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}")


@pytest.fixture(scope="session")
def upstream(host: Host) -> Iterator[None]:
    """A real HTTP server where the api would be; it returns the headers of each request."""
    with running(host, "echo", "ss -ltn | grep -q 127.0.0.1:8000"):
        yield


@pytest.fixture(scope="session")
def local(host: Host) -> LocalClient:
    """A client on the server itself."""
    return LocalClient(host)


@pytest.fixture(scope="session")
def localhost_names() -> Iterator[None]:
    """Resolve *.localhost to this machine."""
    with pytest.MonkeyPatch.context() as patch:
        resolve_localhost(patch)
        yield
