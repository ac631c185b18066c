"""Nobody but the edge and ssh reaches the origin: asked of the real server by a machine beside it."""

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
import websockets.asyncio.client
import yaml

from tests.kit.playbook import run_playbook
from tests.kit.site import mtu

PROJECT = Path(__file__).parents[3]
BED = os.environ["TESTBED_NAME"]
DOMAIN = "screen-flow.localhost"
# What there is to find: ssh, the site, the api, Redis, and a container that was published to the whole world.
PORTS = "22,80,443,6379,8000,9000"
# Asks each [address, port] at once and prints those that take a connection.
KNOCK = """
import json, socket, sys, threading
taken = []
def knock(address, port):
    try:
        socket.create_connection((address, port), 3).close()
        taken.append([address, port])
    except OSError:
        pass
threads = [threading.Thread(target=knock, args=place) for place in json.loads(sys.argv[1])]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(sorted(taken)))
"""


def machine(name):
    """Return another of the scenario's machines."""
    return testinfra.get_host(f"docker://{BED}-{name}")


@pytest.fixture(scope="module")
def attacker():
    return machine("attacker")


@pytest.fixture(scope="module")
def edge():
    """Return a machine that sends from the edge's address."""
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
    """Publish a container on all addresses, as somebody will one day by mistake."""
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
    """Let the edge's tools find the origin by the site's name."""
    edge.run_expect([0], f"grep -q {DOMAIN} /etc/hosts || echo {origin[0]} {DOMAIN} >> /etc/hosts")


def scan(scanner, address, ports, rate=1000):
    """Scan TCP ports; return the open ones and whether all the others kept silent."""
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


def found_by(attacker, origin):
    """Return what the attacker finds over IPv4 and over IPv6, as `scan` does."""
    return [scan(attacker, address, PORTS) for address in origin]


def the_site_works():
    """Ask for the page, sign in and have a ping answered, all through the edge."""
    tls = ssl.create_default_context(cafile=Path(os.environ["TESTBED_STATE_DIR"]) / "edge-ca.pem")
    port = os.environ["TESTBED_PORT_HTTPS"]
    site, local = f"https://{DOMAIN}:{port}", f"https://127.0.0.1:{port}"
    named = {"headers": {"Host": f"{DOMAIN}:{port}"}, "extensions": {"sni_hostname": DOMAIN}}
    with httpx.Client(verify=tls, headers={"Origin": site}) as client:
        client.get(f"{local}/", **named).raise_for_status()
        signed = client.post(f"{local}/api/v1/session", json={"user_id": "ada"}, **named)
        signed.raise_for_status()

    async def pinged():
        async with websockets.asyncio.client.connect(
            f"wss://{DOMAIN}:{port}/api/v1/cv-processing/ws/ada",
            ssl=tls,
            host="127.0.0.1",
            port=int(port),
            origin=site,
            additional_headers={"Cookie": signed.headers["set-cookie"].split(";")[0]},
        ) as ws:
            await ws.send("ping")
            return json.loads(await asyncio.wait_for(ws.recv(), 5))

    # Not the synchronous client (websockets 17.4): its two threads share one OpenSSL object, and about one
    # handshake in 200 was never sent.
    assert asyncio.run(pinged()) == {"type": "pong"}


def wait_until_the_site_works():
    """Ask until it works; fail after a minute with what was wrong last."""
    end = time.monotonic() + 60
    while True:
        try:
            return the_site_works()
        except (httpx.HTTPError, websockets.exceptions.WebSocketException, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(1)


def converge(*options, **variables):
    """Run the firewall's role again; return the finished process."""
    return run_playbook("playbooks/origin.yml", "--tags=origin_firewall", *options, **variables)


def sockets(host):
    """Return how many connections nginx holds on 443."""
    return int(host.run_expect([0], "ss -Htn state established '( sport = :443 )' | wc -l").stdout)


def containers(host):
    """Return the addresses and ports of the api, Redis and the published one on each network of Docker's."""
    ports = {"screen-flow-api-1": 8000, "screen-flow-redis-1": 6379, "published": 6379}
    seen = json.loads(host.run_expect([0], f"docker inspect {' '.join(ports)}").stdout)
    return [
        [network["IPAddress"], ports[container["Name"].lstrip("/")]]
        for container in seen
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def knock(scanner, places):
    """Return those of the [address, port] that take a connection."""
    return json.loads(scanner.run_expect([0], "python3 -c %s %s", KNOCK, json.dumps(places)).stdout)


@pytest.fixture(scope="module")
def neighbour(host, attacker, origin):
    """Let the attacker send straight to the containers' addresses, as a neighbour on the network can."""
    for address, _ in containers(host):
        attacker.run_expect([0], f"ip route replace {address}/32 via {origin[0]}")


def test_the_site_works_from_the_edge():
    wait_until_the_site_works()


def test_every_network_takes_the_machines_mtu(attacker):
    """Larger packets are lost on the way out of an engine inside an engine inside the server."""
    found = attacker.check_output("cat /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu")
    assert found.split() == [mtu(), mtu()]


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_no_port_but_ssh_answers_anybody_else(attacker, origin, family):
    assert scan(attacker, origin[family], "1-65535", rate=6000) == ({22}, True)


def test_containers_are_not_reached_past_the_firewall(host, attacker, neighbour):
    assert knock(attacker, containers(host)) == []


def test_the_scans_would_find_what_is_open(host, attacker, edge, origin, neighbour):
    """The edge is let in, and without the firewall everybody is: the scans above look in the right place."""
    assert scan(edge, origin[0], PORTS) == ({22, 80, 443}, True)
    host.run_expect([0], "systemctl stop origin-firewall")
    try:
        for address in origin:
            assert scan(attacker, address, PORTS)[0] == {22, 80, 443, 9000}
        assert len(knock(attacker, containers(host))) > 0
    finally:
        host.run_expect([0], "systemctl start origin-firewall")
    assert found_by(attacker, origin) == ONLY_SSH


def test_containers_reach_the_world(host):
    """Docker's own translation of addresses goes on: the emulated Cloudflare stands for the world."""
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
    assert found_by(attacker, origin) == ONLY_SSH
    wait_until_the_site_works()
    # Docker's own rules, too: what is published, the way out, and the walls between its networks.
    for rule in ("nat --dport 9000", "nat MASQUERADE", "filter DOCKER-ISOLATION-STAGE-2"):
        table, wanted = rule.split(" ", 1)
        look = f"until iptables-save -t {table} | grep -q -e '{wanted}'; do sleep 0.5; done"
        host.run_expect([0], "timeout 30 sh -c %s", look)


def test_a_reboot_opens_nothing(host, attacker, origin):
    subprocess.run(["docker", "restart", f"{BED}-origin"], check=True, capture_output=True)
    host.run_expect([0], "timeout 60 sh -c 'until systemctl is-system-running --wait; do sleep 1; done'")
    assert addresses("origin") == origin
    assert found_by(attacker, origin) == ONLY_SSH
    wait_until_the_site_works()
    assert found_by(attacker, origin) == ONLY_SSH


def test_a_change_of_ranges_lets_in_those_who_are_named(host, attacker, edge, origin):
    own, _ = addresses("attacker")
    changed = converge(origin_firewall_edge_ranges=[f"{own}/32"])
    assert changed.returncode == 0, changed.stdout
    assert scan(attacker, origin[0], PORTS) == ({22, 80, 443}, True)
    assert scan(edge, origin[0], PORTS) == ({22}, True)
    # By hand, somebody opens it to all.
    host.run_expect([0], "nft insert rule inet origin_firewall input accept")
    dry = converge("--check", "--diff")
    assert "+\t\tiifname" not in dry.stdout
    assert re.search(r"^-\t\taccept$", dry.stdout, re.MULTILINE)
    assert scan(edge, origin[0], "80") == ({80}, True)
    assert converge().returncode == 0
    assert found_by(attacker, origin) == ONLY_SSH
    assert "changed=0" in converge().stdout
    wait_until_the_site_works()


def test_rules_that_lock_us_out_take_themselves_back(host, attacker, origin):
    # The check of the inputs would refuse them: it is told that this run does not come by ssh.
    run = converge(
        __origin_firewall_ssh=[],
        origin_firewall_ssh_ranges=["192.0.2.0/24"],
        origin_firewall_rollback_after=30,
    )
    assert run.returncode != 0
    assert "were not confirmed" in run.stdout
    host.run_expect([0], "grep -q 0.0.0.0/0 /etc/origin-firewall.nft")
    host.run_expect([0], "timeout 40 sh -c 'while test -e /run/origin-firewall.new.nft; do sleep 0.5; done'")
    assert found_by(attacker, origin) == ONLY_SSH
    assert "changed=0" in converge().stdout


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("origin_firewall_edge_ranges", [], "is empty"),
        ("origin_firewall_edge_ranges", ["0.0.0.0/0"], "none wider"),
        ("origin_firewall_edge_ranges", ["2000::/15"], "none wider"),
        ("origin_firewall_ssh_ranges", ["192.0.2.0/24"], "lock itself out"),
        ("origin_firewall_ssh_port", 2222, "lock itself out"),
    ],
)
def test_bad_input_stops_before_anything_changes(variable, value, says):
    run = converge(**{variable: value})
    assert run.returncode != 0
    assert variable in run.stdout
    assert says in " ".join(run.stdout.split())
    assert "changed=0" in run.stdout


# How the clients dawdle, and how many connections are held at least. All come from one address: of uploads
# the limit for each client lets in a hundred.
SLOW = {
    "headers": ("-H -i 10", 650),
    "body": ("-B -i 10 -s 8192 -t POST", 95),
    "reading": ("-X -w 10 -y 20 -n 5 -z 32 -k 3", 650),
}


@pytest.mark.parametrize(("attack", "held"), SLOW.values(), ids=SLOW)
def test_700_slow_clients_of_the_edge_hold_up_nobody(host, edge, attack, held):
    """Even if all of them came through the edge: it passes on what people send as slowly as they do here."""
    end = time.monotonic() + 60
    while (before := sockets(host)) > 10 and time.monotonic() < end:
        time.sleep(1)  # until those of the test before are gone
    slow = f"slowhttptest -c 700 -r 350 -l 40 -p 5 {attack} -u https://{DOMAIN}/"
    edge.run_expect([0], f"sh -c 'timeout 60 {slow} >/dev/null 2>&1 &'")
    time.sleep(15)
    try:
        assert sockets(host) - before >= held
        for _ in range(10):
            the_site_works()
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


def test_tls_offers_nothing_above_mozilla_s_intermediate_profile(edge):
    seen = edge.run_expect(
        [0],
        f"nmap -n -Pn -p 443 --script ssl-enum-ciphers --script-args tls.servername={DOMAIN} {DOMAIN}",
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
        f" --jsonfile /tmp/testssl.json --protocols --server-defaults https://{DOMAIN}:443/"
    )
    found = json.loads(edge.file("/tmp/testssl.json").content_string)
    assert "scanTime" in {finding["id"] for finding in found if finding["severity"] == "INFO"}
    open_ones = {finding["id"] for finding in found if finding["severity"] not in ("OK", "INFO")}
    assert open_ones <= set(waived)
