"""Another firewall that drops the edge is named, with its table, and only then."""

import copy

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis import engine
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES

from tests.kit.evidence import change, failing, healthy
from tests.kit.ruleset import EDGE_NETWORK, UFW, chain, edge_set, matching, nft_rule

FIREWALLD = [
    *edge_set(EDGE_NETWORK),
    chain("inet firewalld", "filter_INPUT", "accept"),
    nft_rule("inet firewalld", "filter_INPUT", matching("dport", 22), "accept"),
    nft_rule("inet firewalld", "filter_INPUT", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}),
]
IPTABLES = [*edge_set(EDGE_NETWORK), chain("ip filter", "INPUT", "accept")]
HTTPS = nft_rule("inet firewalld", "filter_INPUT", matching("dport", 443), "accept")
BAN = chain("inet f2b-table", "f2b-chain", "accept")


def banned(*elements):
    """Return a rule that refuses the addresses of a set, as fail2ban's."""
    banned_set = {"family": "inet", "table": "f2b-table", "name": "addr-set-nginx", "elem": [*elements]}
    return [
        *edge_set(EDGE_NETWORK),
        {"set": banned_set},
        BAN,
        nft_rule(
            "inet f2b-table",
            "f2b-chain",
            matching("dport", {"set": [80, 443]}),
            matching("saddr", "@addr-set-nginx", "ip"),
            "reject",
        ),
    ]


@pytest.mark.parametrize(
    ("ruleset", "words"),
    [
        (UFW, "ufw (table ip filter) drops connections to port 443."),
        ([*UFW, nft_rule("ip filter", "ufw-user-input", matching("dport", 443), "accept")], ""),
        (
            [*UFW, nft_rule("ip filter", "ufw-user-input", matching("dport", {"range": [80, 90]}), "accept")],
            "ufw",
        ),
        (
            [*UFW, nft_rule("ip filter", "ufw-user-input", matching("dport", {"set": [80, 443]}), "accept")],
            "",
        ),
        (FIREWALLD, "firewalld (table inet firewalld) drops"),
        (
            [
                *FIREWALLD[:-1],
                nft_rule("inet firewalld", "filter_INPUT", matching("dport", 443), "accept"),
                *FIREWALLD[-1:],
            ],
            "",
        ),
        ([*IPTABLES, nft_rule("ip filter", "INPUT", matching("dport", 443), "drop")], "iptables (table ip"),
        ([*IPTABLES, nft_rule("ip filter", "INPUT", matching("dport", 443, "udp"), "drop")], ""),
        (
            [
                *IPTABLES,
                nft_rule(
                    "ip filter",
                    "INPUT",
                    matching("saddr", "104.16.0.1", "ip"),
                    {"xt": {"type": "match", "name": "multiport"}},
                    "drop",
                ),
            ],
            "iptables (table ip filter) drops",
        ),
        (banned("198.51.100.7"), ""),
        (banned("198.51.100.7", "104.16.0.9"), "another firewall (table inet f2b-table) drops"),
        # Without the edge's networks in it, this project's own table drops them as well.
        ([*edge_set(), *UFW[2:]], ""),
        # The firewall of this project is off.
        (UFW[2:], "ufw (table ip filter) drops"),
        ([], ""),
    ],
)
def test_another_firewall_is_named_only_where_it_drops_the_edge(ruleset, words):
    document = healthy()
    change(document, "edge/probes/edge", failing("edge", "http", 522))
    change(document, "server/firewall/nftables", copy.deepcopy(ruleset))
    (finding,) = engine.diagnose(document, RULES, again=True).findings
    assert finding.layer == "origin_firewall"
    assert finding.rule == ("other_firewall" if words else "firewall_too_tight")
    assert words in finding.cause


def test_another_firewall_is_no_finding_while_the_edge_connects():
    document = healthy()
    change(document, "server/firewall/nftables", copy.deepcopy(UFW))
    assert engine.diagnose(document, RULES, again=True).findings == []
