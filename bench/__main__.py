"""Run the benchmarks: `scripts/bench --help`."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from bench import extraction, loss, sockets, storm, storm_table, upstream

PLOT = Path(".artefacts/sockets.png")


def number(text: str, low: int = 1) -> int:
    """Read a number of sockets or clients: 9,500 at most, as a process may open 20,000 files."""
    if not text.isdecimal() or not low <= int(text) <= 9_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to 9500")
    return int(text)


def main() -> None:
    """Entry point: exits with 1 when a target is missed or ours loses an event."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="The guide's backend and ours, side by side, through a real nginx on this machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("sockets", help="memory, processor time and fan-out; minutes")
    cost.add_argument(
        "--sockets",
        type=number,
        nargs="+",
        default=[250, 1_000, 3_000, 9_500],
        metavar="N",
        help="how many, 200 or more (%(default)s)",
    )
    losing = commands.add_parser("loss", help="what is lost over seven faults; minutes")
    losing.add_argument("--clients", type=number, default=200, metavar="N", help="how many (%(default)s)")
    losing.add_argument(
        "--design", choices=["guide", "ours"], nargs="+", default=["guide", "ours"], help="which (both)"
    )
    stormy = commands.add_parser("storm", help="all come at once and resume; the api restarts; minutes")
    stormy.add_argument(
        "--against", metavar="REVISION", help="another revision of the app to run before ours"
    )
    stormy.add_argument("--json", type=Path, metavar="FILE", help="write the figures and targets there")
    for option, default, what in (
        ("sockets", 1_000, "sockets of the storm, 0 for none"),
        ("users", 100, "users that they belong to"),
        ("missed", 500, "events that each has missed, 1000 at most"),
        ("restarted", 2_000, "sockets under which the api restarts"),
        ("addresses", 10, "addresses that these come from"),
        ("office", 900, "sockets of one address under which it restarts, through nginx as its role has it"),
        ("room", 9_000, "sockets of one user, who gets one event"),
        ("counted", 3_000, "sockets at which the machine's memory is read, 0 or twice the users and more"),
        ("steady", 2_000, "sockets whose cost is measured, 0 or 200 and more"),
        ("load", 0, "other programs that compute meanwhile"),
    ):
        low = 0 if option in ("sockets", "restarted", "office", "room", "counted", "steady", "load") else 1
        stormy.add_argument(
            f"--{option}", type=partial(number, low=low), default=default, metavar="N",
            help=f"{what} (%(default)s)",
        )  # fmt: skip
    way = commands.add_parser("upstream", help="ways from nginx to the api, in a demo that is up; minutes")
    way.add_argument("--clients", type=number, default=2_000, metavar="N", help="how many (%(default)s)")
    way.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written, too")
    reading = commands.add_parser(
        "extraction",
        help="name, email and phone in CVs of all writers that are installed; minutes",
        description="Further writers of Python and of npm are taken from PYTHONPATH and NODE_PATH.",
    )
    reading.add_argument("--json", type=Path, metavar="FILE", help="write the figures and targets there")
    chosen = parser.parse_args()
    if chosen.command == "extraction":
        report = extraction.run()
        print(f"\n{extraction.table(report)}")
        figures = extraction.figures(report)
        if chosen.json:
            chosen.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")
        sys.exit("a target was missed" if any(figure["met"] is False for figure in figures) else 0)
    if chosen.command == "storm":
        if 0 < chosen.steady < 2 * sockets.USERS:
            parser.error(f"--steady {chosen.steady}: give 0 or {2 * sockets.USERS} and more")
        if 0 < chosen.counted < 2 * chosen.users:
            parser.error(f"--counted {chosen.counted}: give 0 or {2 * chosen.users} and more, twice --users")
        size = storm.Size(
            chosen.sockets, chosen.users, chosen.missed, chosen.restarted, chosen.addresses, chosen.office,
            chosen.room, chosen.counted, chosen.steady, chosen.load,
        )  # fmt: skip
        results = storm.run(size, chosen.against)
        print(f"\n{storm_table.table(results)}")
        figures = storm_table.figures(results)
        if chosen.json:
            chosen.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")
        sys.exit("a target was missed" if any(figure["met"] is False for figure in figures) else 0)
    if chosen.command == "upstream":
        if chosen.clients < 2 * upstream.USERS:
            parser.error(f"--clients {chosen.clients}: give {2 * upstream.USERS} or more")
        ways = upstream.run(chosen.clients)
        print(f"\n{upstream.table(ways)}")
        if chosen.json:
            upstream.save(ways, chosen.json)
        sys.exit(0 if all(figure["met"] for figure in upstream.targets(ways)) else "a target was missed")
    if chosen.command == "loss":
        losses = loss.run(chosen.design, chosen.clients)
        print(f"\n{loss.table(losses)}")
        bad = [loss for loss in losses if loss.design == "ours" and (loss.lost or loss.duplicated)]
        sys.exit("ours lost or duplicated events" if bad else 0)
    if too_few := [n for n in chosen.sockets if n < 2 * sockets.USERS]:
        parser.error(f"--sockets {too_few[0]}: give {2 * sockets.USERS} or more")
    costs = sockets.run(chosen.sockets)
    print(f"\n{sockets.table(costs)}")
    sockets.plot(costs, PLOT)
    print(f"\nPlot: {PLOT}")
    if not all(target.met for n in chosen.sockets for target in sockets.targets(costs, n)):
        sys.exit("a target was missed")


if __name__ == "__main__":
    main()
