"""What a socket costs: the guide's backend, the floor and ours, in turn in one run, through a real nginx."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Tally, connect_all, handshake
from bench.stack import Design, Stack, cpu_seconds, memory, running
from tests.kit.app import ORIGIN

DESIGNS: tuple[Design, ...] = ("guide", "floor", "ours")
USERS = 100  # each has as many sockets as comes out
ROUNDS = 3  # of fan-out, of which the median counts
DELIVERIES = 100_000  # in a round, about
SETTLE = 2.0  # seconds before memory is read
ROUND_LIMIT = 120.0  # seconds


@dataclass(frozen=True)
class Cost:
    """What was measured of one design at one number of sockets."""

    design: Design
    sockets: int
    api_kib: float
    """KiB of the api's memory a socket."""
    nginx_kib: float
    """KiB of nginx's memory a socket."""
    connect_ms: float
    """Milliseconds of the api's processor time a connect."""
    deliveries: float
    """Events a second that reached sockets, the median of the rounds."""
    redis_clients: int
    """Redis connections of the api."""
    delivery_us: float
    """Microseconds of the api's processor time a delivery."""


@dataclass(frozen=True)
class Target:
    """What the project wants: the name of a figure, ours over the guide's, and the bound."""

    name: str
    ratio: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


async def measure(stack: Stack, sockets: int) -> Cost:
    """Connect so many sockets, let events fan out, and return what it cost.

    Raises ConnectionError when a socket is refused or lost, TimeoutError when events do not arrive.
    """
    users = [f"user-{number}" for number in range(USERS)]
    cookies = {user: stack.cookie(user) for user in users}
    # The first socket makes whatever is made once.
    tally = Tally()

    def request(user: str) -> bytes:
        return handshake(f"/api/v1/cv-processing/ws/{user}", ORIGIN, cookies[user])

    warm = await connect_all(stack.port, [request(user) for user in users], tally)
    await asyncio.sleep(SETTLE)
    api_before, nginx_before = memory(stack.api_pid), memory(stack.nginx_workers[-1])
    cpu_before = cpu_seconds(stack.api_pid)
    more = sockets - len(warm)
    opened = await connect_all(stack.port, [request(users[i % USERS]) for i in range(more)], tally)
    cpu = cpu_seconds(stack.api_pid) - cpu_before
    await asyncio.sleep(SETTLE)
    api_kib = (memory(stack.api_pid) - api_before) / more / 1024
    nginx_kib = (memory(stack.nginx_workers[-1]) - nginx_before) / more / 1024
    clients = stack.redis_clients()

    rates = []
    events = max(1, DELIVERIES // sockets)
    delivering = cpu_seconds(stack.api_pid)
    for number in range(ROUNDS):
        begin, wanted = time.perf_counter(), tally.events + events * sockets
        publishing = asyncio.to_thread(stack.publish, users, range(number * events, (number + 1) * events))
        await asyncio.gather(publishing, tally.reach(wanted, ROUND_LIMIT))
        rates.append(events * sockets / (time.perf_counter() - begin))
    delivering = (cpu_seconds(stack.api_pid) - delivering) / (ROUNDS * events * sockets)
    for connection in (*warm, *opened):
        assert connection.transport
        connection.transport.abort()
    rate = statistics.median(rates)
    return Cost(stack.design, sockets, api_kib, nginx_kib, cpu / more * 1000, rate, clients, delivering * 1e6)


def run(numbers: Sequence[int]) -> list[Cost]:
    """Measure all designs at each number of sockets."""
    costs: list[Cost] = []
    for sockets in numbers:
        for design in DESIGNS:
            print(f"{sockets:,} sockets, {design} …", flush=True)
            with tempfile.TemporaryDirectory() as folder, running(design, Path(folder) / design) as stack:
                costs.append(asyncio.run(measure(stack, sockets)))
    return costs


def targets(costs: Sequence[Cost], sockets: int) -> list[Target]:
    """Return the project's targets for one number of sockets."""
    guide, ours = (
        next(cost for cost in costs if (cost.design, cost.sockets) == (design, sockets))
        for design in ("guide", "ours")
    )
    found = [
        Target("memory of the api a socket", ours.api_kib / guide.api_kib, 0.55),
        Target("processor time of the api a connect", ours.connect_ms / guide.connect_ms, 0.35),
        Target("deliveries a second", ours.deliveries / guide.deliveries, 1.8, at_least=True),
        Target("Redis connections of the process, ours alone", ours.redis_clients, 3),
    ]
    if ours.sockets >= 9_000:
        found.append(Target("KiB of nginx and api a socket, ours alone", ours.api_kib + ours.nginx_kib, 60))
    return found


def table(costs: Sequence[Cost]) -> str:
    """Return the figures and the targets as two Markdown tables."""
    lines = [
        "| sockets | design | api, KiB a socket | nginx, KiB a socket | api, ms a connect | "
        "api, µs a delivery | deliveries/s | Redis connections |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {cost.sockets:,} | {cost.design} | {cost.api_kib:.1f} | {cost.nginx_kib:.1f} | "
        f"{cost.connect_ms:.2f} | {cost.delivery_us:.1f} | "
        f"{cost.deliveries:,.0f} | {cost.redis_clients:,} |"
        for cost in costs
    ]
    lines += ["", "| sockets | ours over the guide's | measured | target | |", "|---:|---|---:|---:|---|"]
    for sockets in sorted({cost.sockets for cost in costs}):
        lines += [
            f"| {sockets:,} | {target.name} | {target.ratio:.2f} | "
            f"{'≥' if target.at_least else '≤'} {target.bound:g} | "
            f"{'met' if target.met else 'missed'} |"
            for target in targets(costs, sockets)
        ]
    return "\n".join(lines)


def plot(costs: Sequence[Cost], file: Path) -> None:
    """Draw how the figures grow with the number of sockets, a panel each, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, Callable[[Cost], float]]] = [
        ("api, KiB a socket", lambda cost: cost.api_kib),
        ("api, ms a connect", lambda cost: cost.connect_ms),
        ("api, µs a delivery", lambda cost: cost.delivery_us),
        ("deliveries a second", lambda cost: cost.deliveries),
    ]
    numbers = sorted({cost.sockets for cost in costs})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(14, 4), layout="constrained")
    for axis, (title, value) in zip(axes, panels, strict=True):
        for design, marker in zip(DESIGNS, "sDo", strict=True):
            values = [value(cost) for cost in costs if cost.design == design]
            axis.plot(numbers, values, marker=marker, label=design)
        axis.set_xscale("log")
        axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.set_xlabel("sockets")
        axis.set_title(title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(DESIGNS))
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)
