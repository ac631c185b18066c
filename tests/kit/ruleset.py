"""Rules of the kernel's packet filter, as `nft --json list ruleset` prints them."""


def chain(table, name, policy=None):
    """Return a chain as nft lists it; one with a policy is a base chain for incoming packets."""
    family, name_of_table = table.split()
    base = {"type": "filter", "hook": "input", "prio": 0, "policy": policy} if policy else {}
    return {"chain": {"family": family, "table": name_of_table, "name": name, "handle": 1, **base}}


def nft_rule(table, name, *expressions):
    """Return a rule as nft lists it; a word is a verdict, a mapping any other expression."""
    family, name_of_table = table.split()
    listed = [{each: None} if isinstance(each, str) else each for each in expressions]
    return {"rule": {"family": family, "table": name_of_table, "chain": name, "expr": [*listed]}}


def matching(field, right, protocol="tcp", op="=="):
    """Return a match of a header field."""
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def edge_set(*elements):
    """Return this project's table with a set of the edge's networks."""
    own = {"family": "inet", "table": "origin_firewall"}
    return [
        {"set": {**own, "name": "edge4", "type": "ipv4_addr", **({"elem": [*elements]} if elements else {})}},
        chain("inet origin_firewall", "input", "drop"),
    ]


EDGE_NETWORK = {"prefix": {"addr": "104.16.0.0", "len": 13}}
# As ufw 0.36 and firewalld 2.3 load them on Debian 13, with the rules that matter.
UFW = [
    *edge_set(EDGE_NETWORK),
    chain("ip filter", "INPUT", "drop"),
    chain("ip filter", "ufw-before-input"),
    chain("ip filter", "ufw-user-input"),
    nft_rule("ip filter", "INPUT", {"jump": {"target": "ufw-before-input"}}),
    nft_rule("ip filter", "ufw-before-input", {"xt": {"type": "match", "name": "conntrack"}}, "drop"),
    nft_rule("ip filter", "ufw-before-input", {"jump": {"target": "ufw-user-input"}}),
    nft_rule("ip filter", "ufw-user-input", matching("dport", 22), "accept"),
]
