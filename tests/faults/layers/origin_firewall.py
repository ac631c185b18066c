from tests.faults.kit import Fault, shell


def drop_edge(flag):
    """Return a step: insert (-I) or delete (-D) a rule that drops the edge's packets."""
    return lambda site: site.sh(
        f"iptables {flag} INPUT -s {site.edge_address} -p tcp -m multiport --dports 80,443 -j DROP"
    )


FAULTS = [
    Fault(
        "firewall too tight", "firewall_too_tight", "although nginx answers",
        inject=drop_edge("-I"), heal=drop_edge("-D"),
        touches={"edge way", "api", "redis", "nginx", "files"},
    ),
    Fault(
        "firewall too loose", "firewall_too_loose", "is not Cloudflare",
        inject=shell("nft insert rule inet origin_firewall input tcp dport 443 accept"),
        heal=shell("systemctl reload origin-firewall"),
        touches={"firewall", "edge way", "nginx"},
    ),
]  # fmt: skip
