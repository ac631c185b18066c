"""Seven faults while three CVs are processed and events stream: no event is lost and the page is right.

They break and repair the demo's site, so nothing else may use it at the same time.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from tests.kit.browser import ARTEFACTS, CVS, DevTools, sign_in
from tests.kit.site import Demo

MAIN_PROCESS = (
    "$(pgrep --parent $(docker inspect --format '{{.State.Pid}}' $(docker compose ps --quiet api)))"
)
# Ten cuts in a second: events fall between them.
HUB_CUTS = "for _ in 1 2 3 4 5 6 7 8 9 10; do redis-cli CLIENT KILL TYPE pubsub; sleep 0.1; done"
SHORT = "worker_shutdown_timeout 1s;"


def cut_at_the_edge(demo: Demo, page: Page) -> None:
    assert demo.cut_edge() >= 1


def restart_api(demo: Demo, page: Page) -> None:
    demo.compose("restart", "api")


def kill_api(demo: Demo, page: Page) -> None:
    demo.run("sh", "-c", f"kill -9 {MAIN_PROCESS}")


def restart_redis(demo: Demo, page: Page) -> None:
    demo.compose("restart", "redis")
    server = demo.compose("exec", "-T", "redis", "redis-cli", "INFO", "server")
    assert int(re.findall(r"uptime_in_seconds:(\d+)", server)[0]) < 60


def cut_the_hub_from_redis(demo: Demo, page: Page) -> None:
    assert sum(map(int, demo.compose("exec", "-T", "redis", "sh", "-c", HUB_CUTS).split())) >= 5


def reload_nginx(demo: Demo, page: Page) -> None:
    demo.run("systemctl", "reload", "nginx")


def go_offline(demo: Demo, page: Page) -> None:
    page.context.set_offline(True)
    demo.cut_edge()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "offline")
    page.wait_for_timeout(2_500)
    expect(page.locator(".notice")).to_contain_text("offline")
    page.screenshot(path=ARTEFACTS / f"offline-{page.scheme}.png", full_page=True)
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "offline")
    page.context.set_offline(False)


@dataclass(frozen=True)
class Fault:
    cause: Callable[[Demo, Page], None]
    closes_the_socket: bool = True


FAULTS = {
    "cut at the edge": Fault(cut_at_the_edge),
    "api restart": Fault(restart_api),
    "api kill -9": Fault(kill_api),
    "Redis restart": Fault(restart_redis, closes_the_socket=False),
    "hub cut from Redis": Fault(cut_the_hub_from_redis, closes_the_socket=False),
    "nginx reload": Fault(reload_nginx),
    "browser offline": Fault(go_offline),
}
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module", autouse=True)
def _short_worker_shutdown(demo: Demo) -> Iterator[None]:
    """Make nginx's old workers close their sockets soon after a reload.

    With a reload first, since a worker keeps the configuration that it was started with.
    """
    conf = "/etc/nginx/nginx.conf"
    # A run that was killed may have left its line.
    demo.run("sed", "--in-place", "-e", f"1i {SHORT}", "-e", f"/^{SHORT}$/d", conf)
    try:
        demo.run("sh", "-c", "nginx -t && systemctl reload nginx")
        yield
    finally:
        demo.run("sed", "--in-place", f"/^{SHORT}$/d", conf)
        demo.run("sh", "-c", "nginx -t && systemctl reload nginx")


@pytest.mark.parametrize(
    ("name", "page"),
    [(name, SCHEMES[number % 2]) for number, name in enumerate(FAULTS)] + [("browser offline", "dark")],
    indirect=["page"],
)
def test_no_event_is_lost(page: Page, demo: Demo, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    fault = FAULTS[name]
    devtools = DevTools(page)
    user = sign_in(page, "fault")
    navigations = []
    page.on("framenavigated", lambda frame: navigations.append(frame.url))
    connection = page.get_by_test_id("connection")
    batch = page.get_by_test_id("batch")

    with demo.publishing(user):
        with demo.worker_paused():
            page.get_by_test_id("file-input").set_input_files(CVS)
            expect(batch.get_by_test_id("cv")).to_have_count(3)
        begin = time.time()
        fault.cause(demo, page)
        if fault.closes_the_socket:
            # The page may notice the loss a little later.
            page.wait_for_timeout(1_500)
        expect(connection).to_have_attribute("data-state", "live", timeout=60_000)
        expect(batch).to_have_attribute("data-status", "done", timeout=60_000)
        end = time.time()
        page.wait_for_timeout(500)

    published = demo.published(user)
    during = [event for event in published if begin <= int(event.split("-")[0]) / 1000 <= end]
    assert len(during) > 10, "published after the fault, not during it"
    for _ in range(100):
        if devtools.ids and devtools.ids[-1] == published[-1]:
            break
        page.wait_for_timeout(100)
    assert devtools.ids == published
    assert not [message for message in devtools.messages if message["type"] == "resync"]

    opened = devtools.handshakes.count(101)
    assert opened > 1 if fault.closes_the_socket else opened == 1, (
        f"the fault had another effect: {devtools.handshakes}"
    )
    assert {status for status in devtools.handshakes if status != 101} <= {502, 503, 504}
    assert devtools.insecure == []
    assert navigations == [], "the page was reloaded"

    expect(connection).to_have_attribute("data-state", "live")
    results = [cv.get_attribute("data-status") for cv in batch.get_by_test_id("cv").all()]
    assert results == ["done", "done", "failed"]
    for text in ("Grace Hopper", "Alan Turing"):
        expect(batch).to_contain_text(text)
    expect(batch.get_by_test_id("cv-error")).not_to_be_empty()
    # The page shows the same as after a refresh.
    shown = batch.inner_text()
    page.reload()
    expect(connection).to_have_attribute("data-state", "live")
    assert batch.inner_text() == shown
