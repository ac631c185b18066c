"""cloudflare_ip_ranges over the emulated Cloudflare: asked seldom, kept for bad days, refused when absurd."""

import json
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible_collections.screen_flow.live.plugins.lookup.cloudflare_ip_ranges import check, ranges

from emulator.api import PREFIX, Api
from emulator.faults import Fault
from emulator.zone import Fresh, Zone

LISTED = ["173.245.48.0/20", "198.41.128.0/17", "2400:cb00::/32"]
AT_ONCE = {"retry-after-ms": "1"}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloudflare")
    api = Api(Zone(folder / "zone.json", Fresh("example.com")), "x" * 40, LISTED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api, http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield SimpleNamespace(api=api, url=f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}")
        server.should_exit = True
        thread.join()


@pytest.fixture
def cloudflare(emulated):
    emulated.api.reset()
    return emulated


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "edge-ranges.json"


def answer(*cidrs):
    """An answer of the API that lists these networks."""
    result = {
        "etag": "changed",
        "ipv4_cidrs": [cidr for cidr in cidrs if ":" not in cidr],
        "ipv6_cidrs": [cidr for cidr in cidrs if ":" in cidr],
    }
    return Fault(status=200, body={"success": True, "errors": [], "messages": [], "result": result})


def grow_old(path, seconds=7200):
    os.utime(path, (time.time() - seconds,) * 2)


def test_lists_version_4_before_version_6_and_keeps_a_copy(cloudflare, copy):
    assert ranges(cloudflare.url, copy, 3600) == LISTED
    kept = json.loads(copy.read_text())
    assert kept["ipv4_cidrs"] == LISTED[:2]
    assert kept["etag"]
    assert list(copy.parent.iterdir()) == [copy]


def test_many_uses_ask_once(cloudflare, copy):
    for _ in range(20):
        assert ranges(cloudflare.url, copy, 3600) == LISTED
    assert [entry["path"] for entry in cloudflare.api.journal] == ["/client/v4/ips"]


def test_sends_no_credentials(cloudflare, copy, monkeypatch):
    # The emulator refuses bad tokens except here; so look at the request itself.
    seen = {}
    asked = cloudflare.api._answer

    def note(request, *rest):
        seen.update(request.headers)
        return asked(request, *rest)

    monkeypatch.setattr(cloudflare.api, "_answer", note)
    for name in ("TOKEN", "KEY", "EMAIL", "USER_SERVICE_KEY"):
        monkeypatch.setenv(f"CLOUDFLARE_API_{name}" if name != "EMAIL" else "CLOUDFLARE_EMAIL", "secret")
    ranges(cloudflare.url, copy, 3600)
    assert seen["host"]
    assert "secret" not in str(seen)


def test_an_unchanged_list_leaves_the_copy_but_not_its_age(cloudflare, copy):
    ranges(cloudflare.url, copy, 3600)
    # Text that only a rewrite would change.
    copy.write_text(copy.read_text() + "\n")
    before = copy.read_text()
    grow_old(copy)
    ranges(cloudflare.url, copy, 3600)
    assert copy.read_text() == before
    assert time.time() - copy.stat().st_mtime < 60


def test_a_changed_list_replaces_the_copy(cloudflare, copy):
    ranges(cloudflare.url, copy, 3600)
    grow_old(copy)
    cloudflare.api.faults[:] = [answer("203.0.113.0/24")]
    assert ranges(cloudflare.url, copy, 3600) == ["203.0.113.0/24"]
    assert json.loads(copy.read_text())["ipv4_cidrs"] == ["203.0.113.0/24"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=503, times=9, headers=AT_ONCE, body="down"), "HTTP 503"),
        (Fault(status=429, times=9, headers=AT_ONCE, body={}), "HTTP 429"),
        (Fault(status=200, times=9, body="<html>sign in</html>"), "not with JSON"),
        (Fault(status=200, times=9, body={"success": False, "result": None}), "no success"),
        (None, "can't be reached"),
    ],
    ids=["503", "429", "html", "success false", "gone"],
)
def test_without_an_answer_the_copy_serves_with_a_warning(cloudflare, copy, fault, says):
    ranges(cloudflare.url, copy, 3600)
    grow_old(copy)
    cloudflare.api.faults[:] = [fault] if fault else []
    with socket.socket() as closed:  # bound, so nobody else gets it; not listening, so it refuses
        closed.bind(("127.0.0.1", 0))
        url = cloudflare.url if fault else f"http://127.0.0.1:{closed.getsockname()[1]}"
        warnings = []
        assert ranges(url, copy, 3600, warnings.append) == LISTED
        assert len(warnings) == 1
        assert says in warnings[0]
        assert str(copy) in warnings[0]
        # The next uses of the run don't wait for it again, those after a pause do.
        asked = len(cloudflare.api.journal)
        assert ranges(url, copy, 3600, warnings.append) == LISTED
        assert (len(warnings), len(cloudflare.api.journal)) == (1, asked)
        grow_old(copy, 3600 + 1)
        ranges(url, copy, 3600, warnings.append)
        assert len(warnings) == 2


def test_without_answer_and_copy_it_says_so(cloudflare, copy):
    cloudflare.api.faults[:] = [Fault(status=503, times=9, headers=AT_ONCE, body="down")]
    with pytest.raises(ValueError, match=r"HTTP 503, and .*edge-ranges\.json holds no copy"):
        ranges(cloudflare.url, copy, 3600)


@pytest.mark.parametrize(
    ("cidrs", "says"),
    [
        ([], "lists no IPv4 network"),
        (["2400:cb00::/32"], "lists no IPv4 network"),
        (["0.0.0.0/0"], "0.0.0.0/0 is wider than /8"),
        (["173.245.48.0/20", "::/0"], "::/0 is wider than /16"),
        (["173.245.48.1/20"], "host bits"),
        (["everybody"], "everybody"),
    ],
)
def test_an_absurd_list_is_refused_and_the_copy_stays(cloudflare, copy, cidrs, says):
    ranges(cloudflare.url, copy, 3600)
    before = copy.read_text()
    grow_old(copy)
    cloudflare.api.faults[:] = [answer(*cidrs)]
    with pytest.raises(ValueError, match="must not be used") as refusal:
        ranges(cloudflare.url, copy, 3600)
    assert says in str(refusal.value)
    assert copy.read_text() == before


def test_networks_must_stand_in_their_versions_list():
    with pytest.raises(ValueError, match="stands in ipv4_cidrs"):
        check({"ipv4_cidrs": ["2400:cb00::/32"]})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ipv4_cidrs": ["0.0.0.0/0"]}'])
def test_a_spoilt_copy_is_none(cloudflare, copy, content):
    copy.write_text(content)
    assert ranges(cloudflare.url, copy, 3600) == LISTED
    assert json.loads(copy.read_text())["ipv4_cidrs"] == LISTED[:2]


def test_ansible_gets_a_list_and_a_sentence(cloudflare, copy):
    lookup = lookup_loader.get("screen_flow.live.cloudflare_ip_ranges")
    assert lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy)) == [LISTED]
    with pytest.raises(AnsibleLookupError, match="give a file in a folder"):
        lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy.parent / "missing/x.json"))
