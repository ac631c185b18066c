"""nginx's templates: the guide's values as defaults, and where they differ."""

import re

import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible.template import trust_as_template


@pytest.fixture
def site(render):
    return render("nginx", "site.conf.j2")


def number(pattern: str, text: str) -> int:
    """Return the number that the pattern's group matches."""
    return int(re.search(pattern, text)[1])


def location(text: str, path: str) -> str:
    """Return the lines of one location block."""
    return re.search(rf"location {re.escape(path)} {{(.*?)    }}", text, re.DOTALL).group(1)


@pytest.mark.parametrize(
    "directive",
    [
        "listen 80;",
        "server_name _;",
        "client_max_body_size 50M;",
        "proxy_connect_timeout 300s;",
        "proxy_send_timeout 300s;",
        "proxy_read_timeout 300s;",
        "send_timeout 300s;",
        "proxy_set_header Host $host;",
        "proxy_set_header X-Real-IP $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "proxy_http_version 1.1;",
        "proxy_set_header Connection $connection_upgrade;",
    ],
)
def test_the_server_has_the_guide_s_directive(site, directive):
    assert f"    {directive}\n" in site.split("\n    location ")[0]


@pytest.mark.parametrize(
    "directive",
    [
        # The guide's $proxy_add_x_forwarded_for forwards what a client sent, its $http_upgrade any protocol.
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header Upgrade $upgrade;",
    ],
)
def test_the_server_differs_from_the_guide_where_that_is_safer(site, directive):
    assert f"    {directive}\n" in site.split("\n    location ")[0]


def test_the_server_speaks_tls_for_cloudflare_s_full(site):
    assert "    listen 443 ssl;\n" in site


@pytest.mark.parametrize(
    "directive",
    [
        "proxy_buffering off;",
        "proxy_cache off;",
        "proxy_connect_timeout 7200s;",
        "proxy_send_timeout 7200s;",
        "proxy_read_timeout 7200s;",
    ],
)
def test_the_websocket_location_has_the_guide_s_directive(site, directive):
    assert f"        {directive}\n" in location(site, "/api/v1/cv-processing/ws/")


def test_a_client_that_reads_nothing_is_closed_after_minutes_not_the_guide_s_hours(site):
    assert "        send_timeout 300s;\n" in location(site, "/api/v1/cv-processing/ws/")


def test_the_socket_location_sets_no_header_of_its_own(site):
    # nginx inherits the server's proxy_set_header lines only where a location has none.
    assert "proxy_set_header" not in location(site, "/api/v1/cv-processing/ws/")


def test_only_sockets_get_the_upgrade(site):
    def headers(text):
        return set(re.findall(r"(?m)^ *proxy_set_header (\S+) (.*);$", text))

    server = headers(site.split("\n    location ")[0])
    upgrade = {("Upgrade", "$upgrade"), ("Connection", "$connection_upgrade")}
    assert server >= upgrade
    assert headers(location(site, "/")) == server - upgrade


def test_the_upgrade_map_is_the_guide_s(render):
    text = render("nginx", "nginx.conf.j2")
    block = re.search(r"map \$http_upgrade \$connection_upgrade {(.*?)}", text, re.DOTALL).group(1)
    assert block.split() == ["default", "upgrade;", "''", "close;"]


@pytest.mark.parametrize("connections", [10, 16_384, 65_536])
def test_a_worker_may_open_a_file_for_each_connection_and_more_for_uploads(render, connections):
    text = render("nginx", "nginx.conf.j2", nginx_worker_connections=connections)
    assert f"worker_connections {connections};" in text
    assert number(r"worker_rlimit_nofile (\d+);", text) >= connections + 1_000


def test_two_workers_hold_9500_sockets_of_two_connections_each(render):
    """nginx closes idle clients when less than a sixteenth of its connections is free."""
    connections = number(r"worker_connections (\d+);", render("nginx", "nginx.conf.j2"))
    assert 2 * connections * 15 / 16 >= 2 * 9_500


@pytest.mark.parametrize("connections", [7, 2_000])
def test_all_sockets_of_an_office_may_reconnect_twice_at_once(render, connections):
    site = render("nginx", "site.conf.j2", nginx_handshake_connections=connections)
    assert number(r"limit_conn handshake_connections (\d+);", site) == connections
    assert number(r"limit_req zone=handshake_rate burst=(\d+) nodelay;", site) >= 2 * connections


def test_beyond_the_burst_a_client_s_handshakes_are_limited_to_the_rate(render):
    text = render("nginx", "nginx.conf.j2", nginx_handshake_rate=3)
    assert number(r"handshake_rate:10m rate=(\d+)r/s;", text) == 3


def test_the_upstream_may_be_a_unix_socket(render):
    text = render("nginx", "upstream.conf.j2", nginx_upstream_servers=["unix:/opt/screen-flow/run/api.sock"])
    assert "    server unix:/opt/screen-flow/run/api.sock;\n" in text


TIMEOUTS = ("keepalive_timeout", "client_body_timeout", "client_header_timeout")


@pytest.mark.parametrize(("only_edge", "seconds"), [(False, (75, 60, 10)), (True, (7200, 7200, 7200))])
def test_clients_get_the_guide_s_timeouts_only_behind_a_firewall(render, only_edge, seconds):
    text = render("nginx", "nginx.conf.j2", nginx_only_edge_connects=only_edge)
    assert tuple(number(rf"    {name} (\d+)s;", text) for name in TIMEOUTS) == seconds


def test_no_client_address_is_trusted_by_default(render):
    text = render("nginx", "nginx.conf.j2")
    assert "real_ip_header" not in text
    ranges = ["192.0.2.0/24", "2001:db8::/32"]
    text = render("nginx", "nginx.conf.j2", nginx_real_ip_ranges=ranges)
    assert re.findall(r"set_real_ip_from (.*);", text) == ranges


def test_limits_can_be_off(render):
    off = dict.fromkeys(
        (
            "nginx_handshake_rate",
            "nginx_handshake_connections",
            "nginx_upload_rate",
            "nginx_upload_connections",
        ),
        0,
    )
    text = render("nginx", "nginx.conf.j2", **off) + render("nginx", "site.conf.j2", **off)
    assert not re.search(r"limit_(req|conn)(_zone)? .*zone|limit_conn ", text)


def test_the_catch_all_site_has_no_other_default(render):
    assert "default_server" not in render("nginx", "site.conf.j2")
    text = render("nginx", "site.conf.j2", nginx_server_names=["www.example.com"])
    assert text.count("default_server") == 4


def test_an_alias_only_redirects_and_is_nobody_s_default(render):
    aliases = {
        "nginx_aliases": ["example.com", "old.example.com"],
        "nginx_alias_target": "https://www.example.com:8443",
    }
    for names in (["_"], ["www.example.com"]):
        text = render("nginx", "site.conf.j2", nginx_server_names=names, **aliases)
        *others, alias = re.findall(r"(?m)^server {\n(.*?)^}", text, re.DOTALL)
        # Without another default the first server is the one.
        assert f"    server_name {' '.join(names)};" in others[-1]
        assert "    server_name example.com old.example.com;" in alias
        assert "    return 308 https://www.example.com:8443$request_uri;" in alias
        assert "proxy_pass" not in alias
    assert "308" not in render("nginx", "site.conf.j2", nginx_server_names=["www.example.com"])


def test_nothing_is_included_by_a_pattern(render):
    # dir/* would include an editor's backup files.
    for template in ("nginx.conf.j2", "site.conf.j2", "upstream.conf.j2"):
        assert "*" not in "".join(re.findall(r"include (.*);", render("nginx", template)))


def test_a_server_without_ipv6_has_no_listener_on_it(render):
    names = {"nginx_server_names": ["www.example.com"]}
    assert "[::]:443" in render("nginx", "site.conf.j2", **names)
    assert "[::]" not in render("nginx", "site.conf.j2", nginx_listen_ipv6=False, **names)


def test_what_else_nginx_serves_is_included_where_it_belongs(render):
    text = render(
        "nginx",
        "nginx.conf.j2",
        nginx_main_includes=["modules-enabled/50-mod-stream.conf"],
        nginx_http_includes=["conf.d/shop.conf"],
    )
    top, http = text.split("\nhttp {", 1)
    assert "\ninclude modules-enabled/50-mod-stream.conf;" in top
    assert "\n    include conf.d/shop.conf;" in http


def test_a_misspelt_variable_fails(render):
    with pytest.raises(AnsibleUndefinedVariable, match="nginx_upstream_server"):
        render(
            "nginx",
            "upstream.conf.j2",
            nginx_upstream_servers=trust_as_template("{{ nginx_upstream_server }}"),
        )


@pytest.mark.parametrize(
    ("release", "groups"),
    [("12", "X25519:prime256v1:secp384r1"), ("13", "X25519MLKEM768:X25519:prime256v1:secp384r1")],
)
def test_the_key_exchange_has_mozilla_s_groups_that_the_release_supports(render, release, groups):
    text = render("nginx", "nginx.conf.j2", ansible_facts={"distribution_major_version": release})
    assert f"    ssl_ecdh_curve {groups};\n" in text


def test_given_groups_are_used_unchanged(render):
    text = render("nginx", "nginx.conf.j2", nginx_tls_curves=["secp521r1", "X448"])
    assert "    ssl_ecdh_curve secp521r1:X448;\n" in text


def test_the_name_of_a_limit_s_zone_depends_on_its_key(render):
    """nginx refuses a reload that gives a zone another key, and reports it in its log only."""
    zones = re.findall(r"limit_(?:req|conn)_zone \$(\w+) zone=(\w+):", render("nginx", "nginx.conf.j2"))
    assert len(zones) == 4
    assert all(zone.partition("_")[0] == key.removesuffix("_client") for key, zone in zones), zones
