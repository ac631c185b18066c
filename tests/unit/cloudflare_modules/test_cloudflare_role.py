"""Role cloudflare_zone in a real playbook: its diff, its waits, its validation, and never the token."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from emulator.dns import record_for
from emulator.faults import Fault
from tests.kit.cloudflare import TOKEN

ROOT = Path(__file__).parents[3]


@pytest.fixture
def play(cloudflare, tmp_path):
    """Run the role, or its validation alone, in a playbook; return the exit code and the output."""

    def call(*arguments, entry="main", environment=(), **variables):
        playbook = tmp_path / "play.yml"
        role = {"name": "cloudflare_zone", "tasks_from": entry}
        tasks = [{"name": "Call the role", "ansible.builtin.import_role": role}]
        playbook.write_text(
            yaml.safe_dump([{"name": "Edge", "hosts": "all", "gather_facts": False, "tasks": tasks}])
        )
        (tmp_path / "variables.json").write_text(
            json.dumps(
                {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "cloudflare_zone_name": "example.com",
                    "cloudflare_zone_api_token": TOKEN,
                    "cloudflare_zone_api_base_url": cloudflare.url,
                    **variables,
                }
            )
        )
        command = [
            "ansible-playbook",
            "-i",
            "zone,",
            "-e",
            f"@{tmp_path}/variables.json",
            *arguments,
            str(playbook),
        ]
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "NO_COLOR": "1",
                **dict(environment),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        output = done.stdout + done.stderr
        assert TOKEN not in output
        return SimpleNamespace(rc=done.returncode, text=" ".join(output.split()), lines=output)

    return call


def test_the_role_shows_the_diff_and_not_the_token(play, cloudflare):
    log = {"CLOUDFLARE_LOG": "debug", "CLOUDFLARE_EMAIL": "stray@example.com"}
    first = play("-vvv", "--diff", environment=log)
    assert first.rc == 0, first.lines
    assert "+++ after: zone example.com, setting ssl @@ -1 +1 @@ -flexible +full" in first.text
    assert "+++ after: zone example.com, setting websockets @@ -1 +1 @@ -off +on" in first.text
    assert cloudflare.zone.value("rocket_loader") == "off"
    second = play("-e", "cloudflare_zone_websockets=yes")
    assert "changed=0" in second.text
    assert second.lines.count("TASK [") == 3


def test_what_affects_other_sites_is_named_and_not_weakened(play, cloudflare):
    cloudflare.zone.put_plan("pro")
    cloudflare.zone.change_argo("on")
    cloudflare.zone.put_settings({"min_tls_version": "1.3"})
    cloudflare.zone.dns.put([record_for("shop.example.com", "192.0.2.1")])
    run = play()
    assert run.rc == 0, run.lines
    assert "[WARNING]: These settings apply to the whole zone example.com: " in run.text
    assert (
        "affects other proxied host names as well: shop.example.com. cloudflare_zone_scope host" in run.text
    )
    assert cloudflare.zone.value("min_tls_version") == "1.3"
    assert cloudflare.zone.argo()["result"]["value"] == "on"
    assert not [entry for entry in cloudflare.api.journal if "/argo/" in entry["path"]]
    refused = play(cloudflare_zone_min_tls_version="1.2")
    assert refused.rc == 2
    assert "the zone requires 1.3" in refused.text


def test_the_scope_host_leaves_the_zone_to_other_sites(play, cloudflare):
    before = dict(cloudflare.zone.store.data["settings"])
    run = play(cloudflare_zone_scope="host", cloudflare_zone_settings={"http3": True})
    assert run.rc == 0, run.lines
    assert sorted(name for name, _ in cloudflare.settings_written()) == ["http3", "websockets"]
    assert cloudflare.zone.value("ssl") == before["ssl"]["value"] == "flexible"
    ours = {rule["ref"]: rule["expression"] for rule in cloudflare.rules("http_config_settings")}
    assert ours["screen_flow_host_ssl"] == 'http.host in {"example.com"}'
    assert "changed=0" in play(cloudflare_zone_scope="host", cloudflare_zone_settings={"http3": True}).text
    back = play()
    assert back.rc == 0, back.lines
    assert cloudflare.zone.value("ssl") == "full"
    assert [rule["ref"] for rule in cloudflare.rules("http_config_settings")] == [
        "screen_flow_websocket_config"
    ]


def test_drift_shows_a_tls_version_that_a_run_would_refuse(play, cloudflare):
    assert play(cloudflare_zone_min_tls_version="1.2").rc == 0
    cloudflare.zone.put_settings({"min_tls_version": "1.3"})
    drift = play(entry="drift", cloudflare_zone_min_tls_version="1.2")
    assert drift.rc == 2
    assert "setting min_tls_version was changed by hand operator" in drift.text
    assert play(entry="drift").rc == 0


def test_a_wait_is_shown_while_it_lasts(play, cloudflare):
    """The line has to appear before the module's own output."""
    cloudflare.fail("/settings/ssl$", 429, headers={"retry-after": "2"}, method="PATCH", times=1)
    run = play()
    assert run.rc == 0
    shown = run.lines.index("zone: Cloudflare's rate limit is reached: waiting 2 s")
    assert shown < run.lines.index("changed: [zone]")


@contextlib.contextmanager
def watched(home):
    """Yield the names of the files below `home` that held the token at any time until the block ends."""
    (home / "seen by the watcher").write_text(TOKEN)
    ended, holding = threading.Event(), set()

    def watch():
        while not ended.wait(0.005):
            for file in home.rglob("*"):
                with contextlib.suppress(OSError):
                    if TOKEN.encode() in file.read_bytes():
                        holding.add(file.name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield holding
    finally:
        ended.set()
        watcher.join()


def test_no_file_holds_the_token_while_a_module_runs(play, cloudflare, tmp_path):
    """Without pipelining, a module lies with its arguments in ~/.ansible/tmp until it ends."""
    home = tmp_path / "home"
    home.mkdir()
    cloudflare.api.faults.append(Fault(path="/settings/ssl$", delay=1))
    with watched(home) as holding:
        # Ansible takes the home of the modules' user from the system, that of its own from HOME.
        run = play(environment={"HOME": str(home), "ANSIBLE_REMOTE_TEMP": str(home / "modules")})
    assert run.rc == 0, run.lines
    assert holding == {"seen by the watcher"}


def test_no_file_on_the_disk_holds_what_copy_sends(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    copy = {"content": TOKEN, "dest": str(tmp_path / "sent"), "mode": "0600"}
    copies = {"name": "Write a secret", "ansible.builtin.copy": copy, "no_log": True}
    play = {"name": "Copy", "hosts": "localhost", "gather_facts": False, "tasks": [copies]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    with watched(home) as holding:
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", tmp_path / "play.yml"],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "sent").read_text() == TOKEN
    assert holding == {"seen by the watcher"}


def test_the_role_fails_with_the_message_and_without_the_token(play, cloudflare):
    cloudflare.fail("/zones", 403, (9109, "Invalid access token"))
    cloudflare.succeed("/verify$", {"status": "expired"})
    run = play("-vvv", "--diff")
    assert run.rc == 2
    assert "the API token is expired; create a token" in run.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"cloudflare_zone_name": "my site.com"},
            "cloudflare_zone_name is 'my site.com';",
        ),
        ({"cloudflare_zone_api_token": ""}, "cloudflare_zone_api_token is empty;"),
        (
            {"cloudflare_zone_api_token": "a-malformed-token"},
            "cloudflare_zone_api_token is no",
        ),
        (
            {"cloudflare_zone_api_base_url": "http://192.0.2.1/"},
            "cloudflare_zone_api_base_url is 'http://192.0.2.1/';",
        ),
        (
            {"cloudflare_zone_ssl": "half"},
            "value of cloudflare_zone_ssl must be one of: off, flexible, full, strict",
        ),
        ({"cloudflare_zone_websockets": "maybe"}, "cloudflare_zone_websockets"),
        ({"cloudflare_zone_host": "www.example.org"}, "the zone's name or a host name in it"),
        ({"cloudflare_zone_websocket_path": 'ws"'}, "a path that begins with a slash"),
        ({"cloudflare_zone_settings": {"ssl": "off"}}, "cloudflare_zone_settings names ssl"),
        ({"cloudflare_zone_origin_addresses": ["192.0.2.0/24"]}, "without a prefix length"),
        ({"cloudflare_zone_wait_seconds": -1}, "cloudflare_zone_wait_seconds is -1;"),
        ({"cloudflare_zone_drift_file": "drift.json"}, "absolute paths"),
    ],
)
def test_invalid_input_stops_at_validation(play, cloudflare, variables, words):
    run = play("-vvv", entry="validate", **variables)
    assert run.rc == 2
    assert words in run.text
    assert "a-malformed-token" not in run.text
    assert not cloudflare.api.journal


def test_a_host_in_the_zone_and_its_addresses_pass_validation(play):
    addresses = ["192.0.2.1", "2001:db8::1"]
    run = play(
        entry="validate", cloudflare_zone_host="www.example.com", cloudflare_zone_origin_addresses=addresses
    )
    assert run.rc == 0, run.lines


def test_ssl_off_may_be_a_yaml_boolean(play, cloudflare):
    assert play(cloudflare_zone_ssl=False).rc == 0
    assert cloudflare.zone.value("ssl") == "off"


def test_module_defaults_of_the_group_reach_included_tasks(cloudflare, tmp_path):
    """The roles set zone, token and address once, on the import, for the tasks that it includes."""
    (tmp_path / "inner.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "name": "Turn WebSockets on",
                    "screen_flow.live.cloudflare_zone": {"settings": {"websockets": True}},
                }
            ]
        )
    )
    (tmp_path / "outer.yml").write_text(
        yaml.safe_dump([{"name": "Include the tasks", "ansible.builtin.include_tasks": "inner.yml"}])
    )
    defaults = {"zone": "example.com", "api_token": "{{ token }}", "api_base_url": cloudflare.url}
    task = {
        "name": "Import the tasks",
        "ansible.builtin.import_tasks": "outer.yml",
        "module_defaults": {"group/screen_flow.live.cloudflare": defaults},
    }
    play = {"name": "Edge", "hosts": "localhost", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-e", f"token={TOKEN}", tmp_path / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert cloudflare.zone.value("websockets") == "on"
