from tests.faults.kit import Fault, shell


def drop_edge(flag):
    """Return a step: insert (-I) or delete (-D) a rule that drops the edge's packets."""
    return lambda site: site.sh(
        f"iptables {flag} INPUT -s {site.edge_address} -p tcp -m multiport --dports 80,443 -j DROP"
    )


ADMIT = "nft insert rule inet origin_firewall input tcp dport 443 accept"
FAULTS = [
    Fault("firewall_too_tight", "although nginx answers", drop_edge("-I"), drop_edge("-D"),
          {"edge path", "api", "redis", "nginx", "files"}),
    Fault("firewall_too_loose", "is not Cloudflare", shell(ADMIT), shell("systemctl reload origin-firewall"),
          {"firewall", "edge path", "nginx"}),
]  # fmt: skip
