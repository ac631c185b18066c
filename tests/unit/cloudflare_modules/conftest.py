"""The Cloudflare modules over the emulated API."""

import os

import pytest
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_zone

from emulator.zone import Fresh
from tests.kit import cloudflare_description as description
from tests.kit.ansible_module import run_module
from tests.kit.cloudflare import GUIDE, TOKEN, serve


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    fresh = Fresh("example.com", settings={"ssl": "flexible", "websockets": "off", "rocket_loader": "on"})
    with serve(tmp_path_factory.mktemp("cloudflare"), fresh) as cloudflare:
        yield cloudflare


@pytest.fixture
def cloudflare(emulated):
    emulated.zone.reset()
    emulated.api.reset()
    yield emulated
    if description.PATH.exists():
        assert description.problems(emulated.api.journal) == []


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run_any(cloudflare, capsys):
    """Run a module over the zone and return its result, which holds neither the token nor a private key."""

    def call(module, check=False, **arguments):
        defaults = {"zone": "example.com", "api_token": TOKEN, "api_base_url": cloudflare.url}
        arguments = {name: value for name, value in (defaults | arguments).items() if value is not None}
        result = run_module(module, capsys, arguments, check)
        assert TOKEN not in str(result)
        assert "PRIVATE KEY" not in str(result)
        return result

    return call


@pytest.fixture
def run(run_any):
    """Run cloudflare_zone, with the guide's settings by default."""

    def call(check=False, **arguments):
        return run_any(cloudflare_zone, check, **({"settings": GUIDE} | arguments))

    return call


@pytest.fixture
def refuses(run, cloudflare):
    """Run cloudflare_zone; check that it failed with these words and wrote no setting; return the message."""

    def call(*words, **arguments):
        result = run(**arguments)
        assert result["failed"]
        for word in words:
            assert word in result["msg"]
        assert cloudflare.settings_written() == []
        return result["msg"]

    return call
