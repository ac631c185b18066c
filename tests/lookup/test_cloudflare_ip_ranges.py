"""cloudflare_ip_ranges over the emulated API: few requests, a copy for outages, absurd lists refused."""

import ipaddress
import json
import os
import socket
import sys
import time

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible_collections.screen_flow.live.plugins.lookup.cloudflare_ip_ranges import (
    edge_networks,
    validate,
)
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import client

from emulator.faults import Fault
from emulator.zone import ZoneDefaults
from tests.kit.cloudflare import RETRY_AT_ONCE, serve

NETWORKS = ["173.245.48.0/20", "198.41.128.0/17", "2400:cb00::/32"]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("cloudflare"), ZoneDefaults("example.com"), NETWORKS) as cloudflare:
        yield cloudflare


@pytest.fixture
def cloudflare(emulated):
    emulated.api.reset()
    return emulated


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "edge-ranges.json"


def publish(cloudflare, *cidrs):
    """Answer the next request with these networks."""
    result = {
        "etag": "changed",
        "ipv4_cidrs": [cidr for cidr in cidrs if ":" not in cidr],
        "ipv6_cidrs": [cidr for cidr in cidrs if ":" in cidr],
    }
    cloudflare.succeed("/ips", result, times=1)


def in_order(cidrs):
    """Return networks in the order of their version and address."""
    return sorted(cidrs, key=lambda cidr: (":" in cidr, ipaddress.ip_network(cidr)))


def set_age(path, seconds=7200):
    os.utime(path, (time.time() - seconds,) * 2)


def test_ipv4_comes_before_ipv6_and_a_copy_is_kept(cloudflare, copy):
    assert edge_networks(cloudflare.url, copy, 3600) == NETWORKS
    kept = json.loads(copy.read_text())
    assert kept["ipv4_cidrs"] == NETWORKS[:2]
    assert kept["etag"]
    assert list(copy.parent.iterdir()) == [copy]


def test_many_uses_send_one_request(cloudflare, copy):
    for _ in range(20):
        assert edge_networks(cloudflare.url, copy, 3600) == NETWORKS
    assert [entry["path"] for entry in cloudflare.api.journal] == ["/client/v4/ips"]


def test_no_credentials_are_sent(cloudflare, copy, monkeypatch):
    # The emulator refuses bad tokens except here, so the request itself is examined.
    headers = {}
    answer = cloudflare.api._answer

    def record(request, *rest):
        headers.update(request.headers)
        return answer(request, *rest)

    monkeypatch.setattr(cloudflare.api, "_answer", record)
    for name in ("TOKEN", "KEY", "EMAIL", "USER_SERVICE_KEY"):
        monkeypatch.setenv(f"CLOUDFLARE_API_{name}" if name != "EMAIL" else "CLOUDFLARE_EMAIL", "secret")
    edge_networks(cloudflare.url, copy, 3600)
    assert headers["host"]
    assert "authorization" not in headers
    assert "secret" not in str(headers)


def test_an_unchanged_list_leaves_the_copy_but_not_its_age(cloudflare, copy):
    edge_networks(cloudflare.url, copy, 3600)
    # Text that only a rewrite would change.
    copy.write_text(copy.read_text() + "\n")
    before = copy.read_text()
    set_age(copy)
    edge_networks(cloudflare.url, copy, 3600)
    assert copy.read_text() == before
    assert time.time() - copy.stat().st_mtime < 60


def test_a_changed_list_replaces_the_copy(cloudflare, copy):
    edge_networks(cloudflare.url, copy, 3600)
    set_age(copy)
    publish(cloudflare, *NETWORKS, "203.0.113.0/24")
    assert edge_networks(cloudflare.url, copy, 3600) == [*NETWORKS[:2], "203.0.113.0/24", NETWORKS[2]]
    assert json.loads(copy.read_text())["ipv4_cidrs"] == [*NETWORKS[:2], "203.0.113.0/24"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=503, times=9, headers=RETRY_AT_ONCE, body="down"), "HTTP 503, 2 attempts"),
        (Fault(status=429, times=9, headers=RETRY_AT_ONCE, body={"success": False}), "rate limit"),
        (Fault(status=200, times=9, body="<html>sign in</html>"), "not one of Cloudflare's API"),
        (Fault(status=200, times=9, body={"success": False, "result": None}), "rejected it"),
        (None, "can't connect to"),
    ],
    ids=["503", "429", "html", "success false", "gone"],
)
def test_without_a_response_the_copy_is_used_with_a_warning(cloudflare, copy, fault, message):
    edge_networks(cloudflare.url, copy, 3600)
    set_age(copy)
    cloudflare.api.faults[:] = [fault] if fault else []
    with socket.socket() as closed:  # bound, so that nothing else gets the port; it refuses connections
        closed.bind(("127.0.0.1", 0))
        url = cloudflare.url if fault else f"http://127.0.0.1:{closed.getsockname()[1]}"
        warnings = []
        assert edge_networks(url, copy, 3600, warnings.append) == NETWORKS
        assert len(warnings) == 1
        assert message in warnings[0]
        assert str(copy) in warnings[0]
        # The next uses of the run do not wait for it again; those after a pause do.
        requests = len(cloudflare.api.journal)
        assert edge_networks(url, copy, 3600, warnings.append) == NETWORKS
        assert (len(warnings), len(cloudflare.api.journal)) == (1, requests)
        set_age(copy, 3600 + 1)
        edge_networks(url, copy, 3600, warnings.append)
        assert len(warnings) == 2


def test_without_response_and_copy_both_are_reported(cloudflare, copy):
    cloudflare.api.faults[:] = [Fault(status=503, times=9, headers=RETRY_AT_ONCE, body="down")]
    with pytest.raises(ValueError, match=r"edge-ranges\.json holds no valid copy of them\. .*HTTP 503"):
        edge_networks(cloudflare.url, copy, 3600)


def test_a_missing_sdk_is_reported_and_the_copy_used(cloudflare, copy, monkeypatch):
    edge_networks(cloudflare.url, copy, 3600)
    set_age(copy)
    monkeypatch.setattr(client, "SDK_IMPORT_ERROR", "Traceback")
    warnings = []
    assert edge_networks(cloudflare.url, copy, 3600, warnings.append) == NETWORKS
    assert f"The Python package cloudflare is missing in {sys.executable}" in warnings[0]


@pytest.mark.parametrize(
    ("cidrs", "message"),
    [
        ([], "contains no IPv4 network"),
        (["2400:cb00::/32"], "contains no IPv4 network"),
        (["0.0.0.0/0"], "0.0.0.0/0 is wider than /8"),
        (["173.245.48.0/20", "::/0"], "::/0 is wider than /16"),
        (["173.245.48.1/20"], "host bits"),
        (["everybody"], "everybody"),
        ([*NETWORKS, "10.1.0.0/16"], "10.1.0.0/16 is not public: it overlaps 10.0.0.0/8"),
        ([*NETWORKS, "172.0.0.0/8"], "172.0.0.0/8 is not public: it overlaps 172.16.0.0/12"),
        ([*NETWORKS, "127.0.0.1/32"], "127.0.0.1/32 is not public"),
        ([*NETWORKS, "169.254.169.254/32"], "169.254.169.254/32 is not public"),
        ([*NETWORKS, "224.0.0.0/8"], "224.0.0.0/8 is not public"),
        ([*NETWORKS, "240.0.0.0/8"], "240.0.0.0/8 is not public"),
        ([*NETWORKS, "::1/128"], "::1/128 is not public"),
        ([*NETWORKS, "::ffff:10.0.0.0/104"], "::ffff:10.0.0.0/104 is not public: it overlaps ::/8"),
        ([*NETWORKS, "fd00::/16"], "fd00::/16 is not public"),
        ([*NETWORKS, "fe80::/64"], "fe80::/64 is not public"),
        ([*NETWORKS, "ff02::/16"], "ff02::/16 is not public"),
    ],
)
def test_an_absurd_list_is_refused_and_the_copy_kept(cloudflare, copy, cidrs, message):
    edge_networks(cloudflare.url, copy, 3600)
    before = copy.read_text()
    set_age(copy)
    publish(cloudflare, *cidrs)
    with pytest.raises(ValueError, match="must not be used") as refusal:
        edge_networks(cloudflare.url, copy, 3600)
    assert message in str(refusal.value)
    assert copy.read_text() == before


def test_an_edge_in_private_networks_is_allowed_where_the_inventory_says_so(cloudflare, copy):
    publish(cloudflare, "10.1.0.0/16")
    assert edge_networks(cloudflare.url, copy, 3600, private=True) == ["10.1.0.0/16"]


TEN = [f"198.51.{number}.0/24" for number in range(10)]
FIVE = ["2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32"]


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ([*TEN, *FIVE], [*TEN[3:], *FIVE], "3 of 10 IPv4 networks (198.51.0.0/24, 198.51.1.0/24,"),
        ([*TEN, *FIVE], [*TEN, *FIVE[2:]], "2 of 5 IPv6 networks (2400:cb00::/32, 2606:4700::/32)"),
        ([*TEN, *FIVE], TEN, "5 of 5 IPv6 networks"),
        # One network of ten holds most addresses.
        ([*TEN, "104.16.0.0/13"], [*TEN, "104.16.0.0/14"], "1 of 11 IPv4 networks (104.16.0.0/13)"),
        # As many networks as before, but other ones.
        (TEN, [f"203.0.{number}.0/24" for number in range(10)], "10 of 10 IPv4 networks"),
    ],
    ids=["IPv4", "IPv6", "no IPv6", "addresses", "replaced"],
)
def test_a_list_that_shrinks_is_refused_until_it_is_accepted(cloudflare, copy, before, after, gone):
    publish(cloudflare, *before)
    edge_networks(cloudflare.url, copy, 3600)
    kept = copy.read_text()
    for _ in range(2):  # also the next run
        set_age(copy)
        publish(cloudflare, *after)
        with pytest.raises(ValueError, match="is missing more than a fifth") as refusal:
            edge_networks(cloudflare.url, copy, 3600)
        assert gone in str(refusal.value)
        assert str(copy) in str(refusal.value)
        assert "-e site_edge_ranges_accept=true" in str(refusal.value)
        assert copy.read_text() == kept
    publish(cloudflare, *after)
    assert edge_networks(cloudflare.url, copy, 3600, accept=True) == in_order(after)
    assert edge_networks(cloudflare.url, copy, 3600) == in_order(after)


@pytest.mark.parametrize(
    "after",
    [[*TEN[2:], *FIVE], [*TEN, *FIVE[1:]], ["198.51.0.0/21", *TEN[8:], *FIVE]],
    ids=["two of ten", "one of five", "merged"],
)
def test_a_list_that_loses_a_fifth_or_is_written_otherwise_is_used(cloudflare, copy, after):
    publish(cloudflare, *TEN, *FIVE)
    edge_networks(cloudflare.url, copy, 3600)
    set_age(copy)
    publish(cloudflare, *after)
    assert edge_networks(cloudflare.url, copy, 3600) == in_order(after)


def test_networks_must_be_in_the_list_of_their_version():
    with pytest.raises(ValueError, match="ipv4_cidrs contains 2400:cb00::/32"):
        validate({"ipv4_cidrs": ["2400:cb00::/32"]})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ipv4_cidrs": ["0.0.0.0/0"]}'])
def test_an_invalid_copy_is_replaced(cloudflare, copy, content):
    copy.write_text(content)
    assert edge_networks(cloudflare.url, copy, 3600) == NETWORKS
    assert json.loads(copy.read_text())["ipv4_cidrs"] == NETWORKS[:2]


def test_ansible_gets_a_list_or_a_message(cloudflare, copy):
    lookup = lookup_loader.get("screen_flow.live.cloudflare_ip_ranges")
    assert lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy)) == [NETWORKS]
    publish(cloudflare, "10.0.0.0/8")
    with pytest.raises(AnsibleLookupError, match=r"10\.0\.0\.0/8 is not public"):
        lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy), max_age=0)
    publish(cloudflare, "10.0.0.0/8")
    allowed = {"private": "true", "accept": "yes", "max_age": 0}
    assert lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy), **allowed) == [["10.0.0.0/8"]]
    with pytest.raises(AnsibleLookupError, match="use a file in a folder"):
        lookup.run([], api_base_url=cloudflare.url, cache_file=str(copy.parent / "missing/x.json"))
