"""cloudflare_zone: the address records of one name, written as one transaction."""

import pytest

from emulator.faults import Fault
from tests.kit.ansible_module import warnings
from tests.kit.cloudflare import SITE_DNS

OTHERS = [
    {"type": "A", "name": "example.com", "content": "198.51.100.1"},
    {"type": "TXT", "name": "www.example.com", "content": "keep me"},
    {"type": "MX", "name": "example.com", "content": "mail.example.com"},
]


def records(cloudflare, name="www.example.com"):
    return sorted(
        (one["type"], one["content"], one["proxied"])
        for one in cloudflare.zone.dns.all
        if one["name"] == name
    )


WANTED = [("A", "192.0.2.1", True), ("AAAA", "2001:db8::1", True), ("TXT", "keep me", False)]


@pytest.mark.parametrize(
    ("existing", "difference", "batch_parts"),
    [
        ([], "missing", {"posts"}),
        ([("A", "192.0.2.1", True)], "changed", {"posts"}),
        ([("A", "192.0.2.1", False), ("AAAA", "2001:db8::1", True)], "changed", {"patches"}),
        ([("A", "198.51.100.7", True)], "changed", {"patches", "posts"}),
        ([("CNAME", "elsewhere.example.net", False)], "changed", {"deletes", "posts"}),
        (
            [("A", "192.0.2.1", True), ("AAAA", "2001:db8::1", True), ("A", "198.51.100.7", True)],
            "added",
            {"deletes"},
        ),
    ],
)
def test_the_name_gets_its_records_and_others_are_kept(run, cloudflare, existing, difference, batch_parts):
    records_before = [
        {"type": record_type, "name": "www.example.com", "content": content, "proxied": proxied}
        for record_type, content, proxied in existing
    ]
    cloudflare.zone.dns.put([*OTHERS, *records_before])
    others = [
        one for one in cloudflare.zone.dns.all if one["name"] != "www.example.com" or one["type"] == "TXT"
    ]
    result = run(settings=None, dns=SITE_DNS)
    assert [change["difference"] for change in result["changes"]] == [difference]
    assert records(cloudflare) == WANTED
    assert [one for one in cloudflare.zone.dns.all if one in others] == others
    batches = [entry["body"] for entry in cloudflare.api.journal if entry["path"].endswith("/batch")]
    # The first checks the permission; the change itself is one request.
    assert [set(body) for body in batches] == [{"posts"}, batch_parts]
    cloudflare.api.journal.clear()
    assert not run(settings=None, dns=SITE_DNS)["changed"]
    assert cloudflare.methods() == ["GET", "GET"]


def test_each_name_gets_its_own_records(run, cloudflare):
    apex = {"name": "example.com", "records": SITE_DNS[0]["records"]}
    cloudflare.zone.dns.put(OTHERS)
    result = run(settings=None, dns=[*SITE_DNS, apex])
    assert [change["resource"] for change in result["changes"]] == [
        "DNS of www.example.com",
        "DNS of example.com",
    ]
    assert records(cloudflare) == WANTED
    assert records(cloudflare, "example.com") == [
        *WANTED[:2],
        ("MX", "mail.example.com", False),
    ]
    assert [one["name"] for one in result["before"]["dns"]] == ["www.example.com", "example.com"]
    assert not run(settings=None, dns=result["after"]["dns"])["changed"]


def test_a_record_keeps_its_id_and_comment_when_its_address_changes(run, cloudflare):
    cloudflare.zone.dns.put(
        [{"type": "A", "name": "www.example.com", "content": "198.51.100.7", "comment": "Ours"}]
    )
    before = cloudflare.zone.dns.all[0]
    run(settings=None, dns=[{"name": "www.example.com", "records": SITE_DNS[0]["records"][:1]}])
    after = cloudflare.zone.dns.all[0]
    assert (after["id"], after["comment"], after["content"]) == (before["id"], "Ours", "192.0.2.1")


def test_a_record_removed_by_another_client_meanwhile(run, cloudflare):
    cloudflare.zone.dns.put([{"type": "A", "name": "www.example.com", "content": "198.51.100.7"}])
    path = f"/zones/{{zone}}/dns_records/{cloudflare.zone.dns.all[0]['id']}"
    edits = [{"method": "DELETE", "path": path}]
    cloudflare.api.faults.append(Fault.read({"path": "/batch$", "method": "POST", "skip": 1, "edits": edits}))
    result = run(settings=None, dns=SITE_DNS)
    assert records(cloudflare) == WANTED[:2]
    assert "Another client changed the DNS records" in warnings(result)


@pytest.mark.parametrize(
    ("dns", "words"),
    [
        (
            [{"name": "www.example.com", "records": [{"type": "A", "content": "2001:db8::1"}]}],
            "A takes an IPv4",
        ),
        ([*SITE_DNS, {"name": "www.example.org", "records": []}], "use a name in the zone example.com"),
        (
            [
                {
                    "name": "www.example.com",
                    "records": [{"type": "CNAME", "content": "a.b"}, *SITE_DNS[0]["records"]],
                }
            ],
            "must be the only one",
        ),
        (SITE_DNS * 2, "dns has www.example.com twice"),
    ],
)
def test_invalid_records_are_refused_before_any_request(refuses, cloudflare, dns, words):
    refuses(words, dns=dns)
    assert not cloudflare.api.journal
