"""nginx_config: parses files as nginx does, with inheritance and includes."""

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import nginx_config

MAIN = r"""
user www-data; # a comment; with a semicolon
events { worker_connections 4096; }
http {
    log_format main '{"status":"$status"}';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    proxy_http_version 1.1;
    include upstreams/*.conf;
    include sites-enabled/one;
}
"""
SITE = """
server { listen 80; server_name www.example.com; return 301 https://$host$request_uri; }
server {
    listen 443 ssl; server_name www.example.com example.com;
    ssl_certificate /one.pem;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    location / { proxy_pass http://one; }
    location ~ \\.php$ { return 404; }
    location ^~ /ws/ {
        proxy_pass http://one; proxy_buffering off; proxy_read_timeout 1h 30m;
        proxy_set_header Upgrade "";
    }
}
"""


@pytest.fixture
def site(tmp_path):
    def call(main=MAIN, one=SITE):
        for folder in ("upstreams", "sites-enabled"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "nginx.conf").write_text(main)
        (tmp_path / "upstreams/one.conf").write_text("upstream one { server 127.0.0.1:8000; }")
        (tmp_path / "sites-enabled/one").write_text(one)
        read, files = nginx_config.read(tmp_path / "nginx.conf")
        assert len(files) == 3
        return nginx_config.describe(read, "www.example.com", "/ws/")

    return call


def test_a_site_is_described_with_what_it_inherits(site):
    found = site()
    assert found["upgrade_map"] == "$connection_upgrade"
    assert found["upstreams"] == {"one": ["127.0.0.1:8000"]}
    assert found["worker_connections"] == 4096
    assert found["certificate"] == "/one.pem", "the server with TLS counts"
    assert found["redirects_http"]
    root = found["root_location"]
    assert (root["http_version"], root["upgrade"], root["connection"]) == (
        "1.1", "$http_upgrade", "$connection_upgrade",
    )  # fmt: skip
    assert root["buffering"]


def test_a_level_that_sets_a_header_inherits_none(site):
    socket = site()["websocket_location"]
    assert (socket["upgrade"], socket["connection"]) == ("", "close")
    assert socket["read_timeout"] == 5400
    assert not socket["buffering"]


def test_a_missing_server_is_described_as_null(site):
    found = site(one="server { listen 80; server_name other; }")
    assert not found["server_found"]
    assert found["websocket_location"] is found["root_location"] is None


@pytest.mark.parametrize("text", ["http {", "}", "http { ; }", "user www-data"])
def test_invalid_syntax_raises(text):
    with pytest.raises(ValueError, match="unexpected"):
        nginx_config.parse(text, lambda pattern: [])


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("5s", 5), ("1h 30m", 5400), ("500ms", 0.5), ("$time", None)]
)
def test_times(text, seconds):
    assert nginx_config.seconds(text) == seconds
