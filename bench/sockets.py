"""The cost of a socket: the guide's backend, the floor and ours, in turn in one run, through a real nginx."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, table, target_table
from bench.load import Tally, connect_all, handshake
from bench.stack import Design, Stack, cpu_seconds, memory, running
from tests.kit.app import ORIGIN

DESIGNS: tuple[Design, ...] = ("guide", "floor", "ours")
USERS = 100  # that share the sockets evenly
ROUNDS = 3  # of fan-out; the median is reported
DELIVERIES = 100_000  # approximately, in each round
SETTLE = 2.0  # seconds before memory is read
ROUND_LIMIT = 120.0  # seconds


@dataclass(frozen=True)
class Cost:
    """The cost of one design at one number of sockets."""

    design: Design
    sockets: int
    api_kib: float
    """Memory of the api in KiB for each socket."""
    nginx_kib: float
    """Memory of nginx in KiB for each socket."""
    connect_ms: float
    """Processor time of the api in milliseconds for each connect."""
    deliveries: float
    """Events that reached sockets in a second, the median of the rounds."""
    redis_clients: int
    """Number of the api's Redis connections."""
    delivery_us: float
    """Processor time of the api in microseconds for each delivery."""


async def measure(stack: Stack, sockets: int) -> Cost:
    """Connect this many sockets, publish events to all of them, and return what that cost.

    Raises ConnectionError when a socket is refused or lost, TimeoutError when events do not arrive.
    """
    users = [f"user-{number}" for number in range(USERS)]
    cookies = {user: stack.cookie(user) for user in users}
    # The first socket of each user creates what exists once.
    tally = Tally()

    def request(user: str) -> bytes:
        return handshake(f"/api/v1/cv-processing/ws/{user}", ORIGIN, cookies[user])

    first = await connect_all(stack.port, [request(user) for user in users], tally)
    await asyncio.sleep(SETTLE)
    api_before, nginx_before = memory(stack.api_pid), memory(stack.nginx_workers[-1])
    cpu_before = cpu_seconds(stack.api_pid)
    more = sockets - len(first)
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
    for connection in (*first, *opened):
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


def figures(costs: Sequence[Cost]) -> list[Figure]:
    """Return all costs, and the ratios of ours to the guide's design, with the targets."""
    found = []
    for cost in costs:
        name = f"{cost.sockets:,} sockets, {cost.design}"
        found += [
            Figure(f"{name}: memory of the api a socket", cost.api_kib, "KiB"),
            Figure(f"{name}: memory of nginx a socket", cost.nginx_kib, "KiB"),
            Figure(f"{name}: processor time of the api a connect", cost.connect_ms, "ms"),
            Figure(f"{name}: processor time of the api a delivery", cost.delivery_us, "µs"),
            Figure(f"{name}: deliveries a second", cost.deliveries),
            Figure(f"{name}: Redis connections of the api", cost.redis_clients),
        ]
    for sockets in sorted({cost.sockets for cost in costs}):
        guide, ours = (
            next(cost for cost in costs if (cost.design, cost.sockets) == (design, sockets))
            for design in ("guide", "ours")
        )
        over = f"{sockets:,} sockets, ours over the guide's"
        alone = f"{sockets:,} sockets, ours alone"
        found += [
            Figure(f"{over}: memory of the api a socket", ours.api_kib / guide.api_kib, "", 0.55),
            Figure(
                f"{over}: processor time of the api a connect", ours.connect_ms / guide.connect_ms, "", 0.35
            ),
            Figure(
                f"{over}: deliveries a second", ours.deliveries / guide.deliveries, "", 1.8, at_least=True
            ),
            Figure(f"{alone}: Redis connections of the api", ours.redis_clients, "", 3),
        ]
        if sockets >= 9_000:
            memory_kib = ours.api_kib + ours.nginx_kib
            found.append(Figure(f"{alone}: memory of nginx and api a socket", memory_kib, "KiB", 60))
    return found


def tables(costs: Sequence[Cost]) -> str:
    """Return the costs and the targets as two Markdown tables."""
    head = ("design", "sockets", "api, KiB a socket", "nginx, KiB a socket", "api, ms a connect")
    rows = [
        (
            cost.design,
            f"{cost.sockets:,}",
            f"{cost.api_kib:.1f}",
            f"{cost.nginx_kib:.1f}",
            f"{cost.connect_ms:.2f}",
            f"{cost.delivery_us:.1f}",
            f"{cost.deliveries:,.0f}",
            f"{cost.redis_clients:,}",
        )
        for cost in costs
    ]
    measured = table((*head, "api, µs a delivery", "deliveries/s", "Redis connections"), rows)
    return f"{measured}\n\n{target_table(figures(costs))}"


def plot(costs: Sequence[Cost], file: Path) -> None:
    """Plot each cost over the number of sockets, in a separate panel, into a PNG file."""
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
