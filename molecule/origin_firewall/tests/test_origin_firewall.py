"""Only the edge and ssh reach the origin: scans of the real server by a machine next to it."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import testinfra
import websockets
import yaml

from tests.kit.playbook import changed, run_playbook, words
from tests.kit.process import remote_script
from tests.kit.site import SiteClient, mtu
from tests.kit.testbed import NAME, SITE, restart_server

BED = os.environ.get("TESTBED_NAME", "")
pytestmark = pytest.mark.usefixtures("localhost_names")
# ssh, the site, the api, Redis, and a container that is published on all addresses.
PORTS = "22,80,443,6379,8000,9000"


def machine(name):
    """Return another of the scenario's machines."""
    return testinfra.get_host(f"docker://{BED}-{name}")


@pytest.fixture(scope="module")
def attacker():
    return machine("attacker")


@pytest.fixture(scope="module")
def edge():
    """A machine that sends from the edge's address."""
    return machine("edge-tools")


def addresses(name):
    """Return a machine's (IPv4, IPv6) address on the networks that the attacker is on."""
    networks = json.loads(subprocess.check_output(["docker", "inspect", f"{BED}-{name}"]))[0]
    networks = networks["NetworkSettings"]["Networks"]
    return networks[BED]["IPAddress"], networks[f"{BED}-6"]["GlobalIPv6Address"]


@pytest.fixture(scope="module")
def origin():
    return addresses("origin")


@pytest.fixture(scope="module", autouse=True)
def published(host):
    """Publish a container on all addresses, as may happen by mistake."""
    image = host.run_expect([0], "docker images -q screen-flow-redis").stdout.split()[0]
    host.run_expect(
        [0],
        f"docker run --detach --name published --restart always --publish 9000:6379 {image}"
        " redis-server --protected-mode no",
    )
    yield
    host.run_expect([0], "docker rm --force published")


@pytest.fixture(scope="module", autouse=True)
def name_of_the_origin(edge, origin):
    """Resolve the site's name to the origin for the edge's tools."""
    edge.run_expect([0], f"grep -q {NAME} /etc/hosts || echo {origin[0]} {NAME} >> /etc/hosts")


def scan(scanner, address, ports, rate=1000):
    """Scan TCP ports; return the open ones and whether all others dropped the packets."""
    six = "-6 " if ":" in address else ""
    found = scanner.run_expect(
        [0],
        f"nmap {six}-n -Pn -sS -p {ports} --min-rate {rate} --max-retries 2 -oG - {address}",
    ).stdout
    states = re.findall(r"(\d+)/(\w+)/tcp", found)
    ignored = re.findall(r"Ignored State: (\w+)", found)
    open_ports = {int(port) for port, state in states if state == "open"}
    silent = {state for _, state in states if state != "open"} | set(ignored) <= {"filtered"}
    return open_ports, silent


ONLY_SSH = [({22}, True)] * 2


def scan_both(attacker, origin):
    """Scan over IPv4 and IPv6; return the two results of `scan`."""
    return [scan(attacker, address, PORTS) for address in origin]


def use_the_site():
    """Request the page, sign in and ping over a WebSocket, all through the edge."""
    tls = ssl.create_default_context(cafile=Path(os.environ["TESTBED_STATE_DIR"]) / "edge-ca.pem")
    client = SiteClient.sign_in(SITE, tls, "ada")
    with client.http() as http:
        http.get("/").raise_for_status()

    async def ping():
        async with client.socket() as socket:
            await socket.send("ping")
            return json.loads(await asyncio.wait_for(socket.recv(), 5))

    # Not the synchronous client (websockets 17.4): its two threads share one OpenSSL object, and about one
    # handshake in 200 was never sent.
    assert asyncio.run(ping()) == {"type": "pong"}


def wait_until_the_site_works():
    """Retry for a minute, then fail with the last error."""
    end = time.monotonic() + 60
    while True:
        try:
            return use_the_site()
        except (httpx.HTTPError, websockets.exceptions.WebSocketException, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(1)


def converge(*options, **variables):
    """Run the firewall's role again; return the finished process."""
    return run_playbook("playbooks/origin.yml", "--tags=origin_firewall", *options, **variables)


def connections(host):
    """Return how many connections nginx has on 443."""
    return int(host.run_expect([0], "ss -Htn state established '( sport = :443 )' | wc -l").stdout)


def containers(host):
    """Return [address, port] of the api, Redis and the published container on each of Docker's networks."""
    ports = {"screen-flow-api-1": 8000, "screen-flow-redis-1": 6379, "published": 6379}
    seen = json.loads(host.run_expect([0], f"docker inspect {' '.join(ports)}").stdout)
    return [
        [network["IPAddress"], ports[container["Name"].lstrip("/")]]
        for container in seen
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def reachable(scanner, targets):
    """Return those of the [address, port] that accept a connection from the scanner."""
    script = remote_script("connect")
    return json.loads(scanner.check_output("python3 -c %s %s", script, json.dumps(targets)))


@pytest.fixture(scope="module")
def neighbour(host, attacker, origin):
    """Route the containers' addresses of the attacker through the origin, as a machine on its network can."""
    for address, _ in containers(host):
        attacker.run_expect([0], f"ip route replace {address}/32 via {origin[0]}")


def test_the_site_works_from_the_edge():
    wait_until_the_site_works()


def test_every_network_has_the_machine_s_mtu(attacker):
    """An engine in an engine in the server drops larger packets."""
    found = attacker.check_output("cat /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu")
    assert found.split() == [mtu(), mtu()]


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_only_ssh_is_open_to_others(attacker, origin, family):
    assert scan(attacker, origin[family], "1-65535", rate=6000) == ({22}, True)


def test_containers_are_not_reachable_past_the_firewall(host, attacker, neighbour):
    assert reachable(attacker, containers(host)) == []


def test_the_scans_find_what_is_open(host, attacker, edge, origin, neighbour):
    """The edge finds the open ports, and so does any client without the firewall."""
    assert scan(edge, origin[0], PORTS) == ({22, 80, 443}, True)
    host.run_expect([0], "systemctl stop origin-firewall")
    try:
        for address in origin:
            assert scan(attacker, address, PORTS)[0] == {22, 80, 443, 9000}
        assert len(reachable(attacker, containers(host))) > 0
    finally:
        host.run_expect([0], "systemctl start origin-firewall")
    assert scan_both(attacker, origin) == ONLY_SSH


def test_containers_reach_other_networks(host):
    """Docker's address translation still works: the emulated Cloudflare stands in for the internet."""
    networks = json.loads(subprocess.check_output(["docker", "inspect", f"{BED}-cloudflare"]))[0]
    address = networks["NetworkSettings"]["Networks"][BED]["IPAddress"]
    script = f"import socket; socket.create_connection(('{address}', 8480), 5)"
    host.run_expect([0], "docker exec screen-flow-api-1 python -c %s", script)


@pytest.mark.parametrize(
    "command",
    [
        "systemctl restart docker",
        "systemctl start nftables",
        "systemctl restart nftables",
        "systemctl reload nftables",
        "systemctl stop nftables && systemctl start nftables",
    ],
)
def test_a_restart_on_the_server_opens_nothing(host, attacker, origin, command):
    host.run_expect([0], command)
    assert scan_both(attacker, origin) == ONLY_SSH
    wait_until_the_site_works()
    # Docker's own rules are back as well: published ports, the way out, the isolation of its networks.
    for rule in ("nat --dport 9000", "nat MASQUERADE", "filter DOCKER-ISOLATION-STAGE-2"):
        table, wanted = rule.split(" ", 1)
        look = f"until iptables-save -t {table} | grep -q -e '{wanted}'; do sleep 0.5; done"
        host.run_expect([0], "timeout 30 sh -c %s", look)


def test_a_reboot_opens_nothing(host, attacker, origin):
    restart_server(host)
    assert addresses("origin") == origin
    assert scan_both(attacker, origin) == ONLY_SSH
    wait_until_the_site_works()
    assert scan_both(attacker, origin) == ONLY_SSH


def test_a_change_of_ranges_opens_and_closes_the_ports(host, attacker, edge, origin):
    own, _ = addresses("attacker")
    run = converge(origin_firewall_edge_ranges=[f"{own}/32"])
    assert run.returncode == 0, run.stdout
    assert scan(attacker, origin[0], PORTS) == ({22, 80, 443}, True)
    assert scan(edge, origin[0], PORTS) == ({22}, True)
    # A change by hand opens everything.
    host.run_expect([0], "nft insert rule inet origin_firewall input accept")
    dry = converge("--check", "--diff")
    assert "+\t\tiifname" not in dry.stdout
    assert re.search(r"^-\t\taccept$", dry.stdout, re.MULTILINE)
    assert scan(edge, origin[0], "80") == ({80}, True)
    assert converge().returncode == 0
    assert scan_both(attacker, origin) == ONLY_SSH
    assert changed(converge().stdout) == 0
    wait_until_the_site_works()


def test_rules_that_lock_ansible_out_are_rolled_back(host, attacker, origin):
    # An empty list of ssh connections passes the validation, which would refuse these ranges.
    run = converge(
        __origin_firewall_ssh=[],
        origin_firewall_ssh_ranges=["192.0.2.0/24"],
        origin_firewall_rollback_after=30,
    )
    assert run.returncode != 0
    assert "were not confirmed" in run.stdout
    host.run_expect([0], "grep -q 0.0.0.0/0 /etc/origin-firewall.nft")
    host.run_expect([0], "timeout 40 sh -c 'while test -e /run/origin-firewall.new.nft; do sleep 0.5; done'")
    assert scan_both(attacker, origin) == ONLY_SSH
    assert changed(converge().stdout) == 0


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("origin_firewall_edge_ranges", [], "is empty"),
        ("origin_firewall_edge_ranges", ["0.0.0.0/0"], "none wider"),
        ("origin_firewall_edge_ranges", ["2000::/15"], "none wider"),
        ("origin_firewall_ssh_ranges", ["192.0.2.0/24"], "lock itself out"),
        ("origin_firewall_ssh_port", 2222, "lock itself out"),
    ],
)
def test_invalid_input_is_reported_and_changes_nothing(variable, value, message):
    run = converge(**{variable: value})
    assert run.returncode != 0
    assert variable in run.stdout
    assert message in words(run.stdout)
    assert changed(run.stdout) == 0


# The attack, and how many connections it must hold to count as one. All come from one address, whose limit
# admits a hundred uploads.
SLOW = {
    "headers": ("-H -i 10", 650),
    "body": ("-B -i 10 -s 8192 -t POST", 95),
    "reading": ("-X -w 10 -y 20 -n 5 -z 32 -k 3", 650),
}


@pytest.mark.parametrize(("attack", "held"), SLOW.values(), ids=SLOW)
def test_700_slow_clients_delay_no_other_client(host, edge, attack, held):
    """Even when they come through the edge, which forwards slow requests as slowly as they arrive."""
    end = time.monotonic() + 60
    while (before := connections(host)) > 10 and time.monotonic() < end:
        time.sleep(1)  # until the previous test's are closed
    slow = f"slowhttptest -c 700 -r 350 -l 40 -p 5 {attack} -u https://{NAME}/"
    edge.run_expect([0], f"sh -c 'timeout 60 {slow} >/dev/null 2>&1 &'")
    time.sleep(15)
    try:
        assert connections(host) - before >= held
        for _ in range(10):
            use_the_site()
    finally:
        edge.run("pkill slowhttptest")


# Mozilla's intermediate profile, guideline 6.0, as nmap names the suites.
MOZILLA = {
    "TLSv1.2": {
        f"TLS_ECDHE_{key}_WITH_{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    },
    "TLSv1.3": {
        f"TLS_AKE_WITH_{cipher}"
        for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    },
}


def test_tls_offers_only_mozilla_s_intermediate_profile(edge):
    seen = edge.run_expect(
        [0],
        f"nmap -n -Pn -p 443 --script ssl-enum-ciphers --script-args tls.servername={NAME} {NAME}",
    ).stdout
    offered = {}
    for line in seen.splitlines():
        if version := re.match(r"\|   (\w+v[0-9.]+): ?$", line):
            offered[version[1]] = set()
        elif suite := re.match(r"\|       (TLS_\w+)", line):
            offered[list(offered)[-1]].add(suite[1])
    assert offered.keys() == MOZILLA.keys()
    for version, suites in offered.items():
        assert suites
        assert suites <= MOZILLA[version]


def test_testssl_finds_nothing_that_is_not_waived(edge, origin):
    waived = yaml.safe_load((Path(__file__).parents[1] / "testssl-waivers.yml").read_text())
    edge.run(
        f"timeout 150 testssl --quiet --color 0 --warnings batch --ip {origin[0]} --overwrite"
        f" --jsonfile /tmp/testssl.json --protocols --server-defaults https://{NAME}:443/"
    )
    found = json.loads(edge.file("/tmp/testssl.json").content_string)
    assert "scanTime" in {finding["id"] for finding in found if finding["severity"] == "INFO"}
    open_ones = {finding["id"] for finding in found if finding["severity"] not in ("OK", "INFO")}
    assert open_ones <= set(waived)
