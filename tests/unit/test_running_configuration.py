"""running_configuration: what real processes run, compared with their files; a refused reload."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import running
from ansible_collections.screen_flow.live.plugins.modules import running_configuration

from tests.kit.ansible_module import run_module
from tests.kit.certificates import self_signed
from tests.kit.process import free_port, wait_until

CONFIGURATION = """
daemon off; master_process on; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    limit_req_zone {key} zone=shop:1m rate=1r/s;
    include site.conf;
}}
"""
SITE = """
server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate one.pem; ssl_certificate_key one.key;
    location / {{ limit_req zone=shop; }}
}}
"""


class Nginx:
    """A real nginx whose main process stands in for systemd's."""

    def __init__(self, folder, key="$remote_addr"):
        self.folder, self.port = folder, free_port()
        pair = self_signed("shop.example.com")
        (folder / "one.pem").write_text(pair.certificate)
        (folder / "one.key").write_text(pair.key)
        (folder / "site.conf").write_text(SITE.format(port=self.port))
        self.write(key)
        self.process = subprocess.Popen(("nginx", "-c", self.conf, "-e", folder / "error.log"))
        wait_until("nginx has two workers", lambda: len(running.nginx_workers(self.process.pid)) == 2)

    @property
    def conf(self):
        return self.folder / "nginx.conf"

    def write(self, key):
        time.sleep(2 * running.TOLERANCE)  # as in a run, in which some time passes between two tasks
        self.conf.write_text(CONFIGURATION.format(folder=self.folder, key=key))

    def reload(self):
        before = running.nginx_workers(self.process.pid)
        subprocess.run(("nginx", "-t", "-q", "-c", self.conf), check=True)
        self.process.send_signal(signal.SIGHUP)
        return before


@pytest.fixture
def nginx(tmp_path):
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed: scripts/setup tools")
    one = Nginx(tmp_path)
    yield one
    one.process.terminate()
    one.process.wait(10)


@pytest.fixture
def compare(nginx, capsys, monkeypatch):
    """Return compare(), the module's result for that nginx."""
    monkeypatch.setattr(running, "main_process", lambda unit, deadline: nginx.process.pid)
    arguments = {"unit": "nginx", "files": [str(nginx.conf)], "log": str(nginx.folder / "error.log")}
    return lambda: run_module(running_configuration, capsys, arguments)


def test_a_started_nginx_runs_what_is_on_disk(compare):
    assert compare()["stale"] == []


@pytest.mark.parametrize("name", ["nginx.conf", "site.conf", "one.pem", "one.key"])
def test_a_file_that_nginx_has_not_loaded_is_named_until_the_reload(nginx, compare, name):
    time.sleep(2 * running.TOLERANCE)
    os.utime(nginx.folder / name)
    result = compare()
    assert result["stale"] == [str(nginx.folder / name)]
    assert result["msg"] == f"nginx runs without the changes to {nginx.folder / name}."
    nginx.reload()
    wait_until("the reload is seen", lambda: compare()["stale"] == [])


def test_a_reload_that_nginx_refuses_is_seen_with_its_message(nginx, compare):
    """The test passes, the signal is sent, and only the log says that the old configuration stays."""
    nginx.write("$server_name")
    before = nginx.reload()
    wait_until("nginx logs why", lambda: compare()["refusal"])
    result = compare()
    assert running.nginx_workers(nginx.process.pid) == before
    assert result["stale"] == [str(nginx.conf)]
    assert (
        '"shop" uses the "$server_name" key while previously it used the "$remote_addr" key'
        in result["refusal"]
    )
    assert "systemctl restart nginx" in result["msg"]


def test_a_worker_that_was_started_again_does_not_hide_an_old_one(nginx, compare):
    """The main process starts a crashed worker again, with the configuration that it has in memory."""
    nginx.write("$remote_addr")
    old, kept = running.nginx_workers(nginx.process.pid)
    os.kill(old, signal.SIGKILL)
    wait_until("another worker", lambda: set(running.nginx_workers(nginx.process.pid)) - {old, kept})
    assert compare()["stale"] == [str(nginx.conf)]


def test_a_message_of_an_earlier_reload_is_not_reported(nginx, compare):
    nginx.write("$server_name")
    nginx.reload()
    wait_until("nginx logs why", lambda: compare()["refusal"])
    time.sleep(1)  # nginx logs whole seconds
    nginx.write("$remote_addr")
    assert compare()["stale"] == [str(nginx.conf)]
    assert compare()["refusal"] == ""


def test_what_a_link_points_to_counts_and_a_missing_file_does_not(tmp_path):
    (tmp_path / "enabled").symlink_to(tmp_path / "available")
    (tmp_path / "available").write_text("")
    moment = time.time()
    time.sleep(2 * running.TOLERANCE)
    (tmp_path / "available").write_text("new")
    found = running.changed_since(moment, [tmp_path / "enabled", tmp_path / "gone"])
    assert list(found) == [str(tmp_path / "enabled")]


def test_a_process_started_when_it_did():
    before = time.time()
    child = subprocess.Popen(("sleep", "60"))
    try:
        assert before - running.TOLERANCE < running.started(child.pid) < time.time()
    finally:
        child.kill()
        child.wait()
    assert running.started(child.pid) is None


def test_a_unit_that_does_not_run_has_nothing_stale(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(running, "main_process", lambda unit, deadline: 0)
    result = run_module(running_configuration, capsys, {"unit": "docker", "files": [str(tmp_path)]})
    assert (result["stale"], result["changed"]) == ([], False)
