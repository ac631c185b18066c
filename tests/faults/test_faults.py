"""Faults injected into a healthy site, alone and in pairs: diagnosis must find layer, cause and page of each.

Runs playbooks/diagnose.yml over a site that is up (ORIGIN_CONTAINER and the rest of `.demo/…/env`), with the
site's own variables, and leaves the site healthy.
"""

import os
import random
import ssl
import subprocess
import time
from collections import Counter

import pytest
import websockets
from anyio.from_thread import start_blocking_portal

from tests.faults.kit import WEBSOCKET_PATH, Site
from tests.faults.layers import FAULTS, by_rule
from tests.kit.crowd import Crowd, LiveSocket
from tests.kit.process import REPOSITORY

SEED = 20251206  # the guide's date
SOCKETS = 200
USERS = 5  # a user may have fifty sockets
RUNS = 20


@pytest.fixture(scope="session")
def score():
    """Count right, wrong (another cause than the injected one), missed and false alarms."""
    return Counter()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return the site, healthy before and after."""
    site = Site(os.environ, tmp_path_factory.mktemp("faults"))
    site.sh("test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -qq -y libfaketime")
    site.save()
    evidence = site.wait_until_healthy().record["evidence"]
    assert evidence["edge"]["origin_pulls"]["value"]["zone"], "origin pulls are off: run site.yml"
    yield site
    site.remove_saved()


def pairs(count=10):
    """Return pairs of faults that do not touch the same part, by a fixed seed."""
    draw = random.Random(SEED)
    possible = [
        (one, other)
        for index, one in enumerate(FAULTS)
        for other in FAULTS[index + 1 :]
        if not one.touches & other.touches
    ]
    return draw.sample(possible, count)


def judge(look, expected, score):
    """Compare the findings with the injected faults; return what is wrong, as sentences."""
    found, problems = dict(look.findings), []
    for fault in expected:
        finding = found.pop(fault.rule, None)
        if finding is None:
            score["missed"] += 1
            problems.append(f"{fault.rule}: missed")
        elif (
            finding["layer"] != fault.layer
            or fault.cause not in finding["cause"]
            or not (REPOSITORY / f"docs/runbook/{finding['page']}.md").exists()
        ):
            score["wrong"] += 1
            problems.append(f"{fault.rule}: wrong, {finding}")
        else:
            score["right"] += 1
    for finding in found.values():
        score["false alarms"] += 1
        problems.append(f"false alarm: {finding}")
    return problems


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.rule)
def test_a_fault_is_found_and_reverted(site, score, fault):
    try:
        fault.inject(site)
        look = site.diagnose()
    finally:
        fault.revert(site)
    problems = judge(look, [fault], score)
    site.wait_until_healthy()
    assert not problems, "\n".join([*problems, look.output])
    assert look.collections
    assert look.seconds < 15 * look.collections


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: "+".join(fault.rule for fault in pair))
def test_two_faults_are_both_found(site, score, pair):
    injected = []
    try:
        for fault in pair:
            injected.append(fault)
            fault.inject(site)
        look = site.diagnose()
    finally:
        for fault in reversed(injected):
            fault.revert(site)
    problems = judge(look, pair, score)
    site.wait_until_healthy()
    assert not problems, "\n".join([*problems, look.output])


@pytest.fixture
def crowd(site):
    """Many live sockets through the edge, each with a ping every few seconds."""
    tls = ssl.create_default_context(cafile=site.ca_file)

    def opener(user):
        def open_socket(last):
            return websockets.connect(
                site.url.replace("https", "wss") + WEBSOCKET_PATH + user,
                ssl=tls, host="127.0.0.1", port=site.port, origin=site.url, open_timeout=30,
                additional_headers={"Cookie": site.cookie(user)},
            )  # fmt: skip

        return open_socket

    users = [f"site-check-crowd-{number % USERS}" for number in range(SOCKETS)]
    crowd = Crowd([LiveSocket(opener(user), ping_seconds=3) for user in users])
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
    site.wait_until_healthy()
    assert not problems, "\n".join(problems)


def test_a_healthy_site_is_reported_in_time(site):
    look = site.diagnose()
    assert look.status == 0, look.output
    assert "Every layer is healthy." in look.output
    assert look.seconds < 20


def test_the_playbook_ends_in_time_when_layers_hang(site, capsys):
    hung = by_rule("api_hangs")
    hung.inject(site)
    site.cloudflare("PUT", "faults", [{"path": ".", "times": 1000, "delay": 60}])
    try:
        look = site.diagnose()
    finally:
        site.cloudflare("PUT", "faults", [])
        hung.revert(site)
    with capsys.disabled():
        print(f"\nplaybooks/diagnose.yml with a hung api and a hung Cloudflare API: {look.seconds:.1f} s")
    assert look.status == 2, look.output
    assert "The first broken layer is api: the api hangs" in look.output
    assert "docs/runbook/site_is_down.md" in look.output
    assert "edge.settings: no answer within" in look.output
    assert look.seconds < 20
    site.wait_until_healthy()


def test_score(score, capsys):
    """Print the score; it must be all right and without a false alarm."""
    with capsys.disabled():
        names = ("right", "wrong", "missed", "false alarms")
        print(f"\nfaults: {', '.join(f'{score[name]} {name}' for name in names)}")
    assert score["right"]
    assert not score["wrong"] + score["missed"] + score["false alarms"]
