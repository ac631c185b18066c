"""What the kernel's packet filter does to the edge's connections; not a layer.

Reads the objects of `nft --json list ruleset` (libnftables-json(5)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OWN = ("inet", "origin_firewall")  # the table of role origin_firewall
REFUSALS = {"drop", "reject"}
Table = tuple[str, str]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ruleset:
    """Tables, chains and rules, each in the kernel's order."""

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self._chains = [each["chain"] for each in objects if "chain" in each]
        self._rules = [each["rule"] for each in objects if "rule" in each]
        self._sets = [each["set"] for each in objects if "set" in each]

    def own_admits(self) -> bool:
        """Return whether this project's table is not loaded, or has networks of the edge to admit."""
        if not any(_table(chain) == OWN for chain in self._chains):
            return True
        return any(one.get("elem") for one in self._sets if _table(one) == OWN and "edge" in one["name"])

    def dropping(self, port: int) -> list[str]:
        """Return who else drops connections to a TCP port by rules for incoming packets, with the tables.

        A rule for certain sources counts where they overlap the edge's networks.
        """
        found: dict[str, list[str]] = {}
        for chain in self._chains:
            table = _table(chain)
            filters_input = chain.get("hook") == "input" and chain.get("type") == "filter"
            if filters_input and table != OWN and self._drops(chain, port):
                found.setdefault(self._owner(table), []).append(f"table {' '.join(table)}")
        return [f"{owner} ({', '.join(dict.fromkeys(tables))})" for owner, tables in found.items()]

    def _drops(self, base: Mapping[str, Any], port: int) -> bool:
        """Return whether a base chain drops: by a rule for the port, or for want of one that accepts it."""
        at_last = base.get("policy") == "drop"
        for rule in self._reachable(_table(base), base["name"], set()):
            words = {word for expression in rule["expr"] for word in expression}
            ports = _ports(rule)
            if ports is not None and not any(low <= port <= high for low, high in ports):
                continue
            if not self._concerns_edge(rule):
                continue
            if ports and "accept" in words:
                return False
            if words & REFUSALS:
                # iptables' match of several ports, whose numbers nft does not list.
                if ports or {"type": "match", "name": "multiport"} in [
                    each.get("xt") for each in rule["expr"]
                ]:
                    return True
                # A rule at the end without any condition: the policy of firewalls whose chains accept.
                at_last = at_last or not words & {"match", "xt"}
        return at_last

    def _reachable(self, table: Table, name: str, seen: set[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the rules of a chain, those of the chains that it jumps to in their place."""
        seen.add(name)
        for rule in self._rules:
            if _table(rule) != table or rule["chain"] != name:
                continue
            yield rule
            for expression in rule["expr"]:
                jump = expression.get("jump") or expression.get("goto") or {}
                if jump and jump["target"] not in seen:
                    yield from self._reachable(table, jump["target"], seen)

    def _concerns_edge(self, rule: Mapping[str, Any]) -> bool:
        """Return whether a rule matches a source of the edge, or any source, or that can't be told."""
        edge = [
            network
            for one in self._sets
            if _table(one) == OWN and one["name"].startswith("edge")
            for network in _networks(one.get("elem", []))
        ]
        for expression in rule["expr"]:
            match = expression.get("match", {})
            if _payload(match).get("field") != "saddr" or match.get("op") not in ("==", "in") or not edge:
                continue
            right = match["right"]
            if isinstance(right, str) and right.startswith("@"):
                sets = [one for one in self._sets if _table(one) == _table(rule) and one["name"] == right[1:]]
                right = {"set": [element for one in sets for element in one.get("elem", [])]}
            elements = right["set"] if isinstance(right, dict) and "set" in right else [right]
            if not any(
                one.version == net.version and one.overlaps(net)
                for one in _networks(elements)
                for net in edge
            ):
                return False
        return True

    def _owner(self, table: Table) -> str:
        # A ufw that is disabled leaves its chains behind, without rules.
        filled = {rule["chain"] for rule in self._rules if _table(rule) == table}
        if any(name.startswith("ufw") for name in filled):
            return "ufw"
        if table[1] == "firewalld":
            return "firewalld"
        return "iptables" if table[0] in ("ip", "ip6") and table[1] == "filter" else "another firewall"


def _table(one: Mapping[str, Any]) -> Table:
    return one["family"], one["table"]


def _ports(rule: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    """Return the ranges of TCP ports that a rule matches; None for a rule that does not look at ports.

    Empty for a match that can't be read: a named set, a negation, or another protocol's port.
    """
    for expression in rule["expr"]:
        match = expression.get("match", {})
        payload = _payload(match)
        if payload.get("field") != "dport":
            continue
        if payload.get("protocol") not in ("tcp", "th") or match.get("op") not in ("==", "in"):
            return []
        right = match["right"]
        values = right.get("set", [right]) if isinstance(right, dict) else [right]
        ranges = [value.get("range") if isinstance(value, dict) else [value, value] for value in values]
        return [(one[0], one[1]) for one in ranges if one and isinstance(one[0], int)]
    return None


def _payload(match: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the header field that a match reads, empty for any other kind of match."""
    left = match.get("left")
    found = left.get("payload") if isinstance(left, dict) else None
    return found if isinstance(found, dict) else {}


def _networks(elements: Sequence[Any]) -> Iterator[Network]:
    """Yield the networks of a set's elements; a range counts as its first address."""
    for element in elements:
        value = element.get("elem", {}).get("val", element) if isinstance(element, dict) else element
        if isinstance(value, dict):
            prefix = value.get("prefix")
            value = f"{prefix['addr']}/{prefix['len']}" if prefix else next(iter(value.get("range", [])), "")
        try:
            yield ipaddress.ip_network(value, strict=False)
        except ValueError:
            continue
