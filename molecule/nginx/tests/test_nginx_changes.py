"""nginx's configuration when it changes: an invalid one never goes live, a valid one by a reload."""

from pathlib import Path

import pytest
import yaml

from tests.kit.playbook import changed, run_playbook, words
from tests.kit.process import wait_until

ROLE = Path(__file__).parents[3] / "roles/nginx"


def master(host):
    """Return nginx's main process and its start time, which a reload leaves and a restart changes."""
    return host.check_output("systemctl show nginx --property MainPID,ExecMainStartTimestamp")


def checksums(host):
    """Return the checksum of each file of nginx's configuration."""
    return host.check_output("cd /etc/nginx && find . -type f | sort | xargs sha256sum")


def test_an_invalid_tree_is_reported_by_line_and_the_old_one_keeps_serving(host, upstream, local, converge):
    before = checksums(host)
    run = converge(check=False, nginx_upstream_servers=["127.0.0.1:99999"])
    assert run.returncode != 0
    assert "invalid port in upstream" in run.stdout
    assert "/etc/nginx/upstreams/screen-flow.conf:3" in run.stdout
    assert checksums(host) == before
    assert local.status(80) == 200


def test_a_tree_with_every_option_off_is_valid(upstream, local, converge):
    limits = ("handshake_rate", "handshake_connections", "upload_rate", "upload_connections")
    converge(
        nginx_server_names=["_"],
        nginx_real_ip_ranges=[],
        nginx_allowed_origins=[],
        nginx_security_headers={},
        **{f"nginx_{limit}": 0 for limit in limits},
    )
    try:
        assert local.status(443, name="example.com") == 200
    finally:
        converge()


def test_the_role_lists_the_key_exchange_groups_that_the_server_s_openssl_has(host):
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    old, new = variables["__nginx_tls_groups_3_0"], variables["__nginx_tls_groups_3_5"]

    def known(group):
        pair = (
            "ssl_certificate certs/screen-flow-origin.pem; ssl_certificate_key private/screen-flow-origin.key"
        )
        server = f"server {{ listen 127.0.0.1:81 ssl; {pair}; ssl_ecdh_curve {group}; }}"
        tree = f"events {{}} http {{ {server} }}"
        return host.run("echo %s > /etc/ssl/groups.conf; nginx -t -c /etc/ssl/groups.conf", tree).rc == 0

    assert host.system_info.release.startswith("12")
    assert [group for group in old + new if known(group)] == old


def test_a_changed_value_takes_effect_by_a_reload(host, upstream, local, converge):
    before = master(host)
    converge(nginx_client_max_body_size="1k")
    try:
        assert local.status(80, size=2048) == 413
        assert master(host) == before
    finally:
        converge()
    assert local.status(80, size=2048) == 200


def test_a_reload_that_nginx_refuses_fails_the_run_with_its_message(host, upstream, local, converge):
    """nginx -t passes, the reload exits with 0, and nginx keeps the old configuration."""
    includes = ["conf.d/shop-log.conf", "conf.d/zone.conf", "sites-enabled/shop"]

    def zone(key):
        line = f"limit_req_zone {key} zone=shop:1m rate=1r/s;"
        host.run_expect([0], "printf '%%s\\n' %s > /etc/nginx/conf.d/zone.conf", line)

    try:
        zone("$remote_addr")
        converge(nginx_http_includes=includes)
        zone("$server_name")
        run = converge(check=False, nginx_http_includes=includes)
        assert run.returncode != 0
        assert "nginx runs without the changes to /etc/nginx/conf.d/zone.conf" in words(run.stdout)
        assert 'uses the "$server_name" key while previously it used the "$remote_addr" key' in words(
            run.stdout
        )
        assert local.status(80) == 200
        # Nothing was changed this time, and the new configuration still waits.
        preview = run_playbook("molecule/nginx/converge.yml", "--check", nginx_http_includes=includes)
        assert changed(preview.stdout)
        # As if a run had been killed before its reload: the next one loads what is on disk.
        zone("$remote_addr")
        assert changed(converge(nginx_http_includes=includes).stdout)
        assert changed(converge(nginx_http_includes=includes).stdout) == 0
    finally:
        converge()
        host.run("rm /etc/nginx/conf.d/zone.conf")


def test_a_killed_nginx_starts_again(host, upstream, local):
    before = host.check_output("cat /run/nginx.pid")
    host.run_expect([0], "kill -9 %s", before)
    wait_until(
        "nginx serves again", lambda: host.run("cat /run/nginx.pid").stdout.strip() not in ("", before)
    )
    wait_until("nginx is active", lambda: host.run("systemctl is-active nginx").rc == 0)
    assert local.status(80) == 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("nginx_port_http", 70000),
        ("nginx_server_names", ["exa mple.com"]),
        ("nginx_websocket_path", "/ws"),
        ("nginx_client_header_timeout", 7200),
        ("nginx_real_ip_ranges", ["0.0.0.0/0"]),
        ("nginx_allowed_origins", ["https://www.example.com/"]),
        ("nginx_handshake_rate", -1),
        # Debian 12's OpenSSL has no post-quantum key exchange.
        ("nginx_tls_curves", ["X25519", "X25519MLKEM768"]),
        ("nginx_upstream_servers", ["unix:api.sock"]),
    ],
)
def test_invalid_input_is_reported_and_changes_nothing(converge, variable, value):
    run = converge(check=False, **{variable: value})
    assert run.returncode != 0
    assert variable in run.stdout
    assert str(value) in run.stdout
    assert changed(run.stdout) == 0
