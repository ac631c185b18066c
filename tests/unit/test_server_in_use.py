"""A role stops before it takes over what a server already runs, and names it."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml
from ansible_collections.screen_flow.live.plugins.modules import server_facts

from tests.kit.ansible_files import PROJECT
from tests.kit.playbook import recap

BARE = {
    "ipv6": True,
    "listeners": [],
    "bridges": [],
    "firewalls": [],
    "packages": {},
    "modified_files": [],
    "apt_users": [],
    "files": [],
}
VARIABLES = {
    "docker_engine": {},
    "app_stack": {"app_stack_allowed_origins": ["https://www.example.com"]},
    "nginx": {},
    "origin_firewall": {"origin_firewall_edge_ranges": ["192.0.2.0/24"]},
}


def listener(port, program, protocol="tcp", address="0.0.0.0"):
    loopback = address.startswith("127.")
    return {
        "protocol": protocol,
        "address": address,
        "port": port,
        "program": program,
        "loopback": loopback,
    }


DOCKER_CE = {"packages": {"docker-ce": "5:28.5.1"}}
SHOP = {
    "files": [
        "/etc/nginx/conf.d/log.conf",
        "/etc/nginx/sites-enabled/default",
        "/etc/nginx/sites-enabled/shop",
    ]
}
DEFAULT_SITE = {"files": ["/etc/nginx/sites-enabled/default"]}
SERVICES = {"listeners": [listener(9100, "node_exporter"), listener(51820, "", "udp")]}
BRIDGES = {"bridges": ["app0", "br-12ab", "docker0"]}

# Role, facts on top of a bare server's, variables, and words of the message; none where the role continues.
CASES = [
    ("docker_engine", DOCKER_CE, {}, ["docker-ce 5:28.5.1", "docker_engine_source to docker"]),
    ("docker_engine", DOCKER_CE, {"docker_engine_source": "docker"}, []),
    ("app_stack", {"listeners": [listener(8000, "gunicorn", address="127.0.0.1")]}, {}, ["8000", "gunicorn"]),
    ("app_stack", {"listeners": [listener(8000, "", address="*")]}, {}, ["8000", "an unnamed program"]),
    ("app_stack", {"listeners": [listener(8000, "docker-proxy"), listener(8000, "x", "udp")]}, {}, []),
    (
        "nginx",
        {"listeners": [listener(80, "apache2"), listener(443, "apache2")]},
        {},
        ["80 and 443", "apache2"],
    ),
    ("nginx", {"listeners": [listener(80, "nginx"), listener(25, "exim4")]}, {}, []),
    ("nginx", {"ipv6": False}, {}, ["nginx_listen_ipv6", "no IPv6"]),
    ("nginx", {"ipv6": False}, {"nginx_listen_ipv6": False}, []),
    (
        "nginx",
        SHOP,
        {},
        ["log.conf, /etc/nginx/sites-enabled/shop,", "nginx_http_includes", "nginx_take_over"],
    ),
    ("nginx", SHOP, {"nginx_http_includes": ["conf.d/log.conf"]}, ["/etc/nginx/sites-enabled/shop"]),
    ("nginx", SHOP, {"nginx_http_includes": ["conf.d/log.conf", "/etc/nginx/sites-enabled/shop"]}, []),
    ("nginx", SHOP, {"nginx_take_over": True}, []),
    ("nginx", DEFAULT_SITE, {}, []),
    (
        "nginx",
        DEFAULT_SITE | {"modified_files": ["/etc/nginx/sites-available/default"]},
        {},
        ["sites-enabled/default"],
    ),
    ("nginx", {"modified_files": ["/etc/nginx/nginx.conf"]}, {}, ["/etc/nginx/nginx.conf"]),
    ("nginx", {"files": [*SHOP["files"], "/etc/nginx/upstreams/screen-flow.conf"]}, {}, []),
    ("nginx", {}, {"nginx_http_includes": ["conf.d/*.conf"]}, ["conf.d/*.conf", "single files"]),
    # Text, as -e NAME=VALUE passes it.
    ("nginx", {}, {"nginx_http_includes": "conf.d/shop.conf"}, ["conf.d/shop.conf", "lists of"]),
    ("origin_firewall", {"firewalls": ["ufw"]}, {}, ["ufw", "origin_firewall_take_over"]),
    ("origin_firewall", {"firewalls": ["ufw"]}, {"origin_firewall_take_over": True}, []),
    ("origin_firewall", {"firewalls": ["ufw"]}, {"origin_firewall_enabled": False}, []),
    (
        "origin_firewall",
        SERVICES,
        {},
        ["node_exporter on tcp port 9100", "udp port 51820", "origin_firewall_further_ports"],
    ),
    (
        "origin_firewall",
        SERVICES,
        {"origin_firewall_further_ports": [{"port": 9100}, {"port": 51820, "protocol": "udp"}]},
        [],
    ),
    ("origin_firewall", SERVICES | {"files": ["/etc/origin-firewall.nft"]}, {}, []),
    (
        "origin_firewall",
        {
            "listeners": [
                listener(22, "sshd"),
                listener(443, "nginx"),
                listener(68, "dhclient", "udp"),
                listener(6379, "redis-server", address="127.0.0.1"),
            ]
        },
        {},
        [],
    ),
    ("origin_firewall", BRIDGES, {}, ["app0 off", "origin_firewall_container_interfaces"]),
    ("origin_firewall", BRIDGES, {"origin_firewall_container_interfaces": ["docker0", "br-*", "app*"]}, []),
    ("origin_firewall", {}, {"origin_firewall_further_ports": [{"port": 0}]}, ["1 to 65535"]),
    ("origin_firewall", {}, {"origin_firewall_further_ports": [{"port": 1, "ranges": ["here"]}]}, ["here"]),
    # The edge's networks, given by hand.
    (
        "origin_firewall",
        {},
        {"origin_firewall_edge_ranges": ["173.245.48.0/20", "10.0.0.0/8", "fe80::/64", "2400:cb00::/32"]},
        ["origin_firewall_edge_ranges has 10.0.0.0/8, fe80::/64,", "site_edge_private"],
    ),
    (
        "origin_firewall",
        {},
        {"origin_firewall_edge_ranges": ["10.0.0.0/8"], "origin_firewall_edge_private": True},
        [],
    ),
    (
        "nginx",
        {},
        {"nginx_real_ip_ranges": ["127.0.0.1"]},
        ["nginx_real_ip_ranges has 127.0.0.1,", "site_edge_private"],
    ),
    ("nginx", {}, {"nginx_real_ip_ranges": ["127.0.0.1"], "nginx_real_ip_private": True}, []),
    ("nginx", {}, {"nginx_real_ip_ranges": ["64.0.0.0/2"]}, ["64.0.0.0/2", "none wider than /8"]),
]


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """What each case's validation reports, empty where it passes; one run of Ansible for all."""
    folder = tmp_path_factory.mktemp("messages")
    plays = []
    for number, (role, facts, variables, _) in enumerate(CASES):
        server = {
            "cacheable": True,  # makes them facts, as the module does
            "server": BARE | facts,
            "distribution": "Debian",
            "distribution_version": "13",
            "distribution_major_version": "13",
        }
        report = {"content": "{{ ansible_failed_result.msg }}", "dest": f"{folder}/{number}", "mode": "0600"}
        block = {
            "block": [{"ansible.builtin.import_role": {"name": role, "tasks_from": "validate"}}],
            "rescue": [{"ansible.builtin.copy": report}],
        }
        plays.append(
            {
                "hosts": "localhost",
                "gather_facts": False,
                # The role takes these facts for its own of this run.
                "vars": VARIABLES[role] | variables | {f"__{role}_gathered": {}},
                "tasks": [{"ansible.builtin.set_fact": server}, block],
            }
        )
    playbook = folder / "plays.yml"
    playbook.write_text(yaml.safe_dump(plays))
    run("ansible-playbook", str(playbook))
    return [
        (folder / str(number)).read_text() if (folder / str(number)).exists() else ""
        for number in range(len(CASES))
    ]


def run(*command, **environment):
    done = subprocess.run(
        [
            *command,
            "--inventory=localhost,",
            "--extra-vars",
            json.dumps({"ansible_connection": "local", "ansible_python_interpreter": sys.executable}),
        ],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_would_be_lost_is_named_and_what_is_allowed_passes(messages, number):
    words = CASES[number][3]
    assert bool(messages[number]) == bool(words), messages[number]
    assert all(word in messages[number] for word in words), messages[number]


def test_facts_that_a_cache_has_from_an_earlier_run_are_gathered_again(tmp_path):
    stale = {
        "cacheable": True,
        "server": BARE | {"listeners": [listener(1, "apache2")]},
        "distribution": "Debian",
        "distribution_version": "7",
        "distribution_major_version": "7",
    }
    plays = {
        "earlier": [{"ansible.builtin.set_fact": stale}],
        # Twice, as by preflight and by the role itself.
        "later": [{"ansible.builtin.import_role": {"name": "nginx", "tasks_from": "validate"}}] * 2,
    }
    for name, tasks in plays.items():
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"nginx_take_over": True, "nginx_port_http": 1, "nginx_port_https": 2},
            "tasks": tasks,
        }
        (tmp_path / name).write_text(yaml.safe_dump([play]))
        output = run(
            "ansible-playbook",
            str(tmp_path / name),
            ANSIBLE_CACHE_PLUGIN="jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(tmp_path / "cache"),
        )
    # The second time, distribution and server.
    assert recap(output)[0]["skipped"] == 2


def test_the_module_finds_sockets_packages_and_files(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/shop.conf").touch()
    given = {
        "packages": ["dpkg", "no-such-package"],
        "files": [f"{tmp_path}/conf.d/*.conf", f"{tmp_path}/none/*"],
    }
    with socket.create_server(("0.0.0.0", 0)) as outside, socket.create_server(("127.0.0.1", 0)) as inside:
        output = run(
            "ansible", "localhost", "--module-name=screen_flow.live.server_facts", "--args", json.dumps(given)
        )
        found = json.loads(output.split("=>", 1)[1])["ansible_facts"]["server"]
        ports = {one["port"]: one for one in found["listeners"] if one["protocol"] == "tcp"}
        assert not ports[outside.getsockname()[1]]["loopback"]
        assert ports[outside.getsockname()[1]]["program"]
        assert ports[inside.getsockname()[1]]["loopback"]
    assert list(found["packages"]) == ["dpkg"]
    assert found["files"] == [f"{tmp_path}/conf.d/shop.conf"]
    assert found["modified_files"] == []


def test_the_program_that_holds_a_lock_of_apt_is_named(tmp_path):
    lock = tmp_path / "lock-frontend"
    lock.touch()
    assert server_facts.lock_holders([lock, tmp_path / "none"]) == []
    script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        (sys.executable, "-c", script, lock), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        (found,) = server_facts.lock_holders([lock, tmp_path / "none"])
        assert found.startswith("python") and found.endswith(f"(process {holder.pid})")
        holder.communicate(b"\n")
    assert server_facts.lock_holders([lock]) == []
