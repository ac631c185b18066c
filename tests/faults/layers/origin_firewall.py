from tests.faults.kit import Fault, shell


def drop_edge(flag):
    """Return a step: insert (-I) or delete (-D) a rule that drops the edge's packets."""
    return lambda site: site.sh(
        f"iptables {flag} INPUT -s {site.edge_address} -p tcp -m multiport --dports 80,443 -j DROP"
    )


# An outdated list of the edge's networks, without this edge.
EDGE = "inet origin_firewall edge4"
OUTDATED = f"nft flush set {EDGE} && nft add element {EDGE} '{{ 192.0.2.0/24 }}'"
ADMIT = "nft insert rule inet origin_firewall input tcp dport 443 accept"
FAULTS = [
    Fault("firewall_too_tight", "although nginx answers locally.",
          shell(OUTDATED), shell("systemctl reload origin-firewall"),
          {"edge path", "api", "redis", "nginx", "files", "firewall"}),
    Fault("other_firewall", "although nginx answers locally: iptables (table ip filter) drops",
          drop_edge("-I"), drop_edge("-D"), {"edge path", "api", "redis", "nginx", "files", "firewall"}),
    Fault("firewall_too_loose", "is not Cloudflare", shell(ADMIT), shell("systemctl reload origin-firewall"),
          {"firewall", "edge path", "nginx"}),
]  # fmt: skip
