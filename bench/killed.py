"""Kill runs of site.yml at their tasks, over a running demo; the next run has to finish what they began."""

import asyncio
import os
import random
import secrets
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.figures import Figure, table
from tests.kit.crowd import Crowd, LiveSocket
from tests.kit.killed import OTHER, Visitor, kill_run, was_killed
from tests.kit.playbook import changed, run_playbook
from tests.kit.site import SiteClient, resolve_localhost

SOCKETS = 20
DEEP = 2.0  # seconds after a task's start within which a run is killed inside it


@dataclass(frozen=True)
class Kill:
    """One killed run: the task, when it was killed there, and what the two runs after it did."""

    task: str
    when: str
    killed: bool
    finished: bool
    changed_by_third: int
    failed_requests: int
    longest_outage: float
    closed_sockets: int


def _kill(number: int, task: str, when: str, variables: dict[str, Any]) -> Kill:
    """Kill a run at its task `number`, then run twice to the end, under sockets and requests."""
    url, tls = os.environ["SITE_URL"], ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    client = SiteClient.sign_in(url, tls, f"killed-{secrets.token_hex(4)}")
    crowd = Crowd(
        [LiveSocket(lambda last: client.socket(last, compression=None), "0-0") for _ in range(SOCKETS)]
    )
    visitor = Visitor()

    async def watch() -> Kill:
        async with crowd.connected():
            with visitor.visiting():
                killed = await asyncio.to_thread(lambda: kill_run(number, when, **variables))
                second = await asyncio.to_thread(lambda: run_playbook("site.yml", **variables))
                third = await asyncio.to_thread(lambda: run_playbook("site.yml", **variables))
        return Kill(
            task,
            when,
            was_killed(killed),
            second.returncode == third.returncode == 0,
            changed(third.stdout),
            visitor.failures.total(),
            visitor.longest_outage,
            crowd.closes.total(),
        )

    return asyncio.run(watch())


def run(sample: int | None, seed: int) -> list[Kill]:
    """Kill a run at each task, or at a sample of them, in turn with other values and the demo's own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        resolve_localhost(patch)
        log = Path(folder) / "tasks"
        # A task that no run has: these two end, and name the tasks of each direction.
        tasks: list[list[str]] = []
        for variables in (OTHER, {}):
            log.unlink(missing_ok=True)
            kill_run("none", "end", log=log, **variables)
            tasks.append(log.read_text().splitlines())
        draw = random.Random(seed)  # noqa: S311 -- a choice of tests
        numbers: Sequence[int] = range(1, min(map(len, tasks)) + 1)
        if sample is not None:
            numbers = sorted(draw.sample(numbers, min(sample, len(numbers))))
        kills = []
        for turn, number in enumerate(numbers):
            when = draw.choice(["0", "end", f"{draw.uniform(0, DEEP):.2f}"])
            task = tasks[turn % 2][number - 1]
            print(f"killed at task {number}, {task}, {when} …", flush=True)
            kills.append(_kill(number, task, when, (OTHER, {})[turn % 2]))
        if len(kills) % 2:
            run_playbook("site.yml")  # with the demo's own values again
    return kills


def figures(kills: Sequence[Kill]) -> list[Figure]:
    """Return what was counted, with the targets."""
    return [
        Figure("killed runs", sum(kill.killed for kill in kills)),
        Figure("runs that the next did not finish", sum(not kill.finished for kill in kills), target=0),
        Figure("changes by the third run", sum(kill.changed_by_third for kill in kills), target=0),
        Figure("failed requests", sum(kill.failed_requests for kill in kills), target=0),
        Figure("longest outage", max(kill.longest_outage for kill in kills), "s", target=0),
        Figure("closed sockets", sum(kill.closed_sockets for kill in kills), target=0),
    ]


def kills_table(kills: Sequence[Kill]) -> str:
    """Return a row for each killed run as a Markdown table."""
    head = [
        "task",
        "killed after",
        "finished by the next",
        "changed by the third",
        "failed requests",
        "closed",
    ]
    return table(
        head,
        [
            [
                kill.task,
                kill.when if kill.when == "end" else f"{kill.when} s",
                "yes" if kill.finished else "NO",
                str(kill.changed_by_third),
                str(kill.failed_requests),
                str(kill.closed_sockets),
            ]
            for kill in kills
        ],
        left=3,
    )
