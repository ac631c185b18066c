"""Faults made on a healthy site, alone and in pairs: diagnosis must name layer, cause and page of each.

It runs over a site that is up (ORIGIN_CONTAINER and the rest of `.demo/…/env`), and leaves it healthy.
"""

import random
import ssl
import subprocess
import time
from collections import Counter

import pytest
import websockets
from anyio.from_thread import start_blocking_portal

from tests.faults.faults import FAULTS, by_name, identifier, save
from tests.faults.kit import PROJECT, WEBSOCKET_PATH, site_from_environment
from tests.kit.crowd import Crowd, LiveSocket
from tests.kit.playbook import run_playbook

SEED = 20251206  # the guide's date
SOCKETS = 200
RUNS = 20


@pytest.fixture(scope="session")
def score():
    """Count right, wrong (another cause than the one made), missed and false alarms."""
    return Counter()


@pytest.fixture(scope="session")
def site():
    """Return the site, healthy before and after."""
    site = site_from_environment()
    site.sh("test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -qq -y libfaketime")
    site.saved = save(site)
    assert site.healthy().document["edge"]["origin_pulls"]["value"]["zone"], "origin pulls are off: site.yml"
    yield site
    site.sh("rm -rf /opt/site-evidence")


def pairs(count=10):
    """Return pairs of faults that do not touch the same thing, by a fixed seed."""
    draw = random.Random(SEED)
    possible = [
        (one, other)
        for index, one in enumerate(FAULTS)
        for other in FAULTS[index + 1 :]
        if not one.touches & other.touches
    ]
    return draw.sample(possible, count)


def page_of(finding):
    """Return whether the finding's page is in the runbook."""
    return (PROJECT / f"docs/runbook/{finding.page}.md").exists()


def judge(look, wanted, score):
    """Count what was found against what was made; return the sentences for what is not right."""
    found, problems = {finding.rule: finding for finding in look.diagnosis.findings}, []
    for fault in wanted:
        finding = found.pop(fault.rule, None)
        if finding is None:
            score["missed"] += 1
            problems.append(f"{fault.name}: missed")
        elif finding.layer != fault.layer or fault.says not in finding.cause or not page_of(finding):
            score["wrong"] += 1
            problems.append(f"{fault.name}: wrong, {finding}")
        else:
            score["right"] += 1
    for finding in found.values():
        score["false alarms"] += 1
        problems.append(f"false alarm: {finding}")
    return problems


@pytest.mark.parametrize("fault", FAULTS, ids=identifier)
def test_a_fault_is_named_and_then_healed(site, score, fault):
    try:
        fault.inject(site)
        look = site.diagnose()
    finally:
        fault.heal(site)
    problems = judge(look, [fault], score)
    site.healthy()
    assert not problems, "\n".join(problems)
    assert look.seconds < 15


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: "+".join(map(identifier, pair)))
def test_two_faults_are_both_named(site, score, pair):
    made = []
    try:
        for fault in pair:
            made.append(fault)
            fault.inject(site)
        look = site.diagnose()
    finally:
        for fault in reversed(made):
            fault.heal(site)
    problems = judge(look, pair, score)
    site.healthy()
    assert not problems, "\n".join(problems)


@pytest.fixture
def crowd(site):
    """Many live sockets through the edge, each with a ping every few seconds."""
    tls = ssl.create_default_context(cafile=site.ca_file)

    def open_socket(last):
        return websockets.connect(
            site.url.replace("https", "wss") + WEBSOCKET_PATH + "site-check-crowd",
            ssl=tls, host="127.0.0.1", port=site.port, origin=site.url, open_timeout=30,
            additional_headers={"Cookie": site.cookie("site-check-crowd")},
        )  # fmt: skip

    crowd = Crowd([LiveSocket(open_socket, ping_seconds=3) for _ in range(SOCKETS)])
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(crowd.connected()):
        yield


def test_a_busy_site_and_one_being_deployed_have_no_finding(site, score, crowd):
    draw, problems = random.Random(SEED), []
    for number in range(RUNS):
        deployment = None
        if number % 2:
            deployment = subprocess.Popen(
                ["docker", "exec", site.container, "sh", "-c",
                 "cd /opt/screen-flow && docker compose up --detach --force-recreate api"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(draw.uniform(0, 6))
        problems += [f"run {number}: {problem}" for problem in judge(site.diagnose(), [], score)]
        if deployment:
            assert deployment.wait(60) == 0
    site.compose("up --detach")
    site.healthy()
    assert not problems, "\n".join(problems)


def play(**variables):
    """Run playbooks/diagnose.yml; return the finished process and its seconds."""
    start = time.monotonic()
    done = run_playbook("playbooks/diagnose.yml", **variables)
    return done, time.monotonic() - start


def test_the_playbook_is_content_with_a_healthy_site(site):
    done, seconds = play()
    assert done.returncode == 0, done.stdout
    assert seconds < 20


def test_the_playbook_ends_in_time_when_layers_hang(site, capsys):
    hung = by_name("api hung")
    hung.inject(site)
    site.cloudflare("PUT", "faults", [{"path": ".", "times": 1000, "delay": 60}])
    try:
        done, seconds = play()
    finally:
        site.cloudflare("PUT", "faults", [])
        hung.heal(site)
    with capsys.disabled():
        print(f"\nplaybooks/diagnose.yml with a hung api and a hung Cloudflare API: {seconds:.1f} s")
    assert done.returncode == 2, done.stdout
    assert "The first broken layer is api: the api hangs" in done.stdout
    assert "docs/runbook/site_is_down.md" in done.stdout
    assert "edge.settings: no answer within" in done.stdout
    assert seconds < 20
    site.healthy()


def test_score(score, capsys):
    """Say the score; the bar is all right and no false alarm."""
    with capsys.disabled():
        names = ("right", "wrong", "missed", "false alarms")
        print(f"\nfaults: {', '.join(f'{score[name]} {name}' for name in names)}")
    assert score["right"]
    assert not score["wrong"] + score["missed"] + score["false alarms"]
