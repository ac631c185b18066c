"""Run the benchmarks: `scripts/bench --help`."""

import argparse
import sys
from functools import partial
from pathlib import Path

from bench import extraction, fairness, figures, loss, sockets, storm, storm_table, upstream

PLOT = Path(".artefacts/sockets.png")


def number(text: str, low: int = 1) -> int:
    """Parse a number of sockets or clients: at most 9,500, as a process may open 20,000 files."""
    if not text.isdecimal() or not low <= int(text) <= 9_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to 9500")
    return int(text)


def output(text: str) -> Path:
    """Parse the path of a file to write, whose folder must exist."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in an existing folder")
    return path


def _sockets(chosen: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    costs = sockets.run(chosen.sockets)
    sockets.plot(costs, PLOT)
    return f"{sockets.tables(costs)}\n\nPlot: {PLOT}", sockets.figures(costs)


def _loss(chosen: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    losses = loss.run(chosen.design, chosen.clients)
    return loss.losses_table(losses), loss.figures(losses)


def _storm(chosen: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    size = storm.Size(
        chosen.sockets, chosen.users, chosen.missed, chosen.restarted, chosen.addresses, chosen.office,
        chosen.room, chosen.counted, chosen.steady, chosen.load,
    )  # fmt: skip
    results = storm.run(size, chosen.against)
    return storm_table.tables(results), storm_table.figures(results)


def _upstream(chosen: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    costs = upstream.run(chosen.clients)
    return upstream.costs_table(costs), upstream.figures(costs)


def _add_count(parser: argparse.ArgumentParser, option: str, default: int, what: str, low: int = 1) -> None:
    parser.add_argument(
        f"--{option}",
        type=partial(number, low=low),
        default=default,
        metavar="N",
        help=f"{what} (%(default)s)",
    )


def _extraction(_: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    report = extraction.run()
    return extraction.table(report), extraction.figures(report)


def _fairness(chosen: argparse.Namespace) -> tuple[str, list[figures.Figure]]:
    results = fairness.run(chosen.seconds, chosen.against)
    return fairness.table(results), fairness.figures(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compare the guide's backend with ours, through a real nginx on this machine.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", type=output, metavar="FILE", help="also write all figures, with their targets, to FILE"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    cost = commands.add_parser(
        "sockets", parents=[common], help="memory, processor time and fan-out; takes minutes"
    )
    cost.set_defaults(run=_sockets)
    cost.add_argument(
        "--sockets",
        type=partial(number, low=2 * sockets.USERS),
        nargs="+",
        default=[250, 1_000, 3_000, 9_500],
        metavar="N",
        help=f"numbers of sockets, each {2 * sockets.USERS} or more (%(default)s)",
    )

    losing = commands.add_parser(
        "loss", parents=[common], help="events lost during seven faults; takes minutes"
    )
    losing.set_defaults(run=_loss)
    _add_count(losing, "clients", 200, "number of clients")
    losing.add_argument(
        "--design",
        choices=["guide", "ours"],
        nargs="+",
        default=["guide", "ours"],
        help="designs to measure (both)",
    )

    stormy = commands.add_parser(
        "storm",
        parents=[common],
        help="all clients reconnect and resume at once; the api restarts; takes minutes",
    )
    stormy.set_defaults(run=_storm)
    stormy.add_argument(
        "--against", metavar="REVISION", help="another revision of the app, to be measured before ours"
    )
    for option, default, what in (
        ("sockets", 1_000, "sockets of the storm; 0 skips it"),
        ("users", 100, "users of these sockets"),
        ("missed", 500, "events that each socket has missed, 1000 at most"),
        ("restarted", 2_000, "sockets under which the api restarts; 0 skips it"),
        ("addresses", 10, "client addresses of these sockets"),
        ("office", 900, "sockets of one address under which it restarts, with the role's nginx; 0 skips it"),
        ("room", 9_000, "sockets of one user, who gets one event; 0 skips it"),
        ("counted", 3_000, "sockets at which the machine's memory is read, 0 or at least twice the users"),
        ("steady", 2_000, f"sockets whose cost is measured, 0 or at least {2 * sockets.USERS}"),
        ("load", 0, "other programs that compete for the processor"),
    ):
        _add_count(stormy, option, default, what, low=1 if option in ("users", "missed", "addresses") else 0)

    way = commands.add_parser(
        "upstream",
        parents=[common],
        help="connections from nginx to the api, in a running demo; takes minutes",
    )
    way.set_defaults(run=_upstream)
    low = 2 * upstream.USERS
    _add_count(way, "clients", 2_000, f"number of clients, {low} or more", low)

    reading = commands.add_parser(
        "extraction",
        parents=[common],
        help="name, email and phone read from CVs by every installed writer; takes minutes",
        description="Further writers of Python and of npm are taken from PYTHONPATH and NODE_PATH.",
    )
    reading.set_defaults(run=_extraction)

    fair = commands.add_parser(
        "fairness", parents=[common], help="one account floods the worker; what another one sees; a minute"
    )
    fair.set_defaults(run=_fairness)
    fair.add_argument(
        "--against", metavar="REVISION", help="another revision of the app, to be measured before ours"
    )
    _add_count(fair, "seconds", 30, "seconds of flood that are measured")
    return parser


def main() -> None:
    """Entry point: exits with status 1 when a target is missed."""
    parser = _parser()
    chosen = parser.parse_args()
    if chosen.command == "storm":
        if 0 < chosen.steady < 2 * sockets.USERS:
            parser.error(f"--steady {chosen.steady}: use 0, or {2 * sockets.USERS} or more")
        if 0 < chosen.counted < 2 * chosen.users:
            parser.error(f"--counted {chosen.counted}: use 0, or {2 * chosen.users} or more (twice --users)")
    text, measured = chosen.run(chosen)
    print(f"\n{text}")
    if chosen.json:
        figures.save(measured, chosen.json)
    sys.exit("a target was missed" if figures.missed(measured) else 0)


if __name__ == "__main__":
    main()
