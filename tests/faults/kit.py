"""A running site to break: its server by the engine, its emulated Cloudflare, and diagnosis in process."""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import yaml
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import diagnose
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import edge as evidence_edge

PROJECT = Path(__file__).parents[2]
INVENTORY = yaml.safe_load((PROJECT / "inventories/demo/group_vars/all/site.yml").read_text())
WEBSOCKET_PATH = "/api/v1/cv-processing/ws/"
UPSTREAM = "unix:/opt/screen-flow/run/api.sock"
TIMEOUT = 5
# Longer than the playbook's: the suite, the site and the emulated Cloudflare share a few cores.
DEADLINE = 12
# What the module brings to the server: the same files, run by the server's Python.
KIT = ("evidence/document.py", "evidence/nginx_config.py", "evidence/server.py", "probe/websocket.py")
RUN = (
    "import json, os, sys; from kit.evidence.server import Options, gather_server; "
    "print(json.dumps(gather_server(Options(**json.load(sys.stdin)))), flush=True); os._exit(0)"
)


@dataclass(frozen=True)
class Look:
    """One diagnosis, the document that it was made of, and the seconds that it took."""

    diagnosis: object
    document: dict
    seconds: float

    @property
    def rules(self):
        return [finding.rule for finding in self.diagnosis.findings]


class Site:
    """The site that `.demo/…/env` names."""

    def __init__(self, env):
        self.url = env["SITE_URL"]
        self.host = urlsplit(self.url).hostname
        self.port = urlsplit(self.url).port or 443
        self.container = env["ORIGIN_CONTAINER"]
        self.address = env["ORIGIN_ADDRESS"]
        self.ca_file = env["EDGE_CA_FILE"]
        self.api_url = env["EMULATOR_API_URL"]
        self.state_dir = Path(self.ca_file).parent
        self.token = (self.state_dir / "token").read_text().strip()
        # The emulated edge lists its own address alone.
        ranges = httpx.get(f"{self.api_url}/ips").raise_for_status().json()["result"]
        self.edge_address = ranges["ipv4_cidrs"][0]
        control = urlsplit(self.api_url)._replace(path="/_emulator").geturl()
        self._control = httpx.Client(base_url=control, timeout=10, trust_env=False)
        self.key = self.sh("head -n 1 /opt/screen-flow/secrets/probe_key").strip()
        self.zone_id = self.cloudflare("GET", "state")["zone"]["id"]
        self.edge_only = bool(self.sh("nft list table inet origin_firewall", check=False))
        self._bring()

    def sh(self, command, check=True, text=None):
        """Run a command on the server; return what it printed."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.container, "sh", "-c", command],
            input=text, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def compose(self, arguments):
        """Run docker compose on the server."""
        return self.sh(f"cd /opt/screen-flow && docker compose {arguments}")

    def cloudflare(self, method, path, body=None):
        """Set or read the emulated Cloudflare."""
        answer = self._control.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def api(self, method, path, body):
        """Call Cloudflare's API below the zone."""
        url, headers = f"{self.api_url}/zones/{self.zone_id}{path}", {"Authorization": f"Bearer {self.token}"}
        answer = httpx.request(method, url, headers=headers, json=body, timeout=10, trust_env=False)
        assert answer.status_code < 300, answer.text

    def rules(self):
        """Return the rules of the zone's cache phase."""
        return (self.look().document["edge"]["rules"].get("value") or {}).get("cache", [])

    def _bring(self):
        folder = PROJECT / "collections/ansible_collections/screen_flow/live/plugins/module_utils"
        packed = subprocess.run(["tar", "-C", folder, "-c", *KIT], capture_output=True, check=True).stdout
        self.sh("mkdir -p /opt/site-evidence/kit && touch /opt/site-evidence/kit/__init__.py")
        subprocess.run(
            ["docker", "exec", "-i", self.container, "tar", "-C", "/opt/site-evidence/kit", "-x",
             "--no-same-owner"],
            input=packed, check=True,
        )  # fmt: skip

    def cookie(self, user="site-check"):
        """Return the Cookie header of a probe's session."""
        now = int(time.time())
        token = jwt.encode({"sub": user, "iat": now, "exp": now + 120}, self.key, algorithm="HS256")
        return f"__Host-screen-flow={token}"

    def look(self, again=False):
        """Gather and reason once."""
        start = time.time()
        cookie = self.cookie()

        def target(name, url, **more):
            return {
                "name": name, "url": url, "address": None, "port": None, "until": None, "verify": True,
                "ca_file": None, "origin": self.url, "cookie": cookie, "healthy_close_codes": [],
                "timeout": TIMEOUT, **more,
            }  # fmt: skip

        path = f"{WEBSOCKET_PATH}site-check"
        inside = [
            target("api", f"ws://127.0.0.1:8000{path}"),
            target("nginx port 80", f"ws://{self.host}:80{path}", address="127.0.0.1"),
            target("nginx port 443", f"wss://{self.host}:443{path}", address="127.0.0.1", verify=False),
        ]
        options = {
            "targets": inside, "websocket_path": WEBSOCKET_PATH, "user_id": "site-check",
            "server_name": self.host, "origin": self.url, "cookie": cookie, "api_port": 8000,
            "https_port": 443,
            "compose_dir": "/opt/screen-flow", "control_time": start, "timeout": TIMEOUT,
            "deadline": DEADLINE,
        }  # fmt: skip
        outside = evidence_edge.Options(
            url=self.url, websocket_path=WEBSOCKET_PATH, address="127.0.0.1", port=self.port,
            ca_file=self.ca_file, api_token=self.token, api_base_url=self.api_url, zone=self.host,
            timeout=TIMEOUT, deadline=DEADLINE,
            targets=[
                target("edge", self.url.replace("https", "wss") + path, address="127.0.0.1", port=self.port,
                       ca_file=self.ca_file),
                *(target(f"origin port {port}", f"http://{self.host}:{port}/", address=self.address,
                         until="tcp", timeout=2) for port in (443, 80)),
            ],
        )  # fmt: skip
        edge = {}
        thread = threading.Thread(target=lambda: edge.update(evidence_edge.gather_edge(outside)))
        thread.start()
        server = self.sh(f"cd /opt/site-evidence && timeout 30 python3 -c '{RUN}'", text=json.dumps(options))
        thread.join()
        document = {
            "format": 1,
            "expected": {
                "site_url": self.url, "host": self.host, "websocket_path": WEBSOCKET_PATH,
                "user_id": "site-check", "api_port": 8000, "upstream": UPSTREAM,
                "http_port": 80, "https_port": 443,
                "heartbeat_seconds": INVENTORY["site_heartbeat_seconds"], "edge_idle_seconds": 100,
                "origin_addresses": [self.address],
                "edge_only": self.edge_only,
            },
            "server": json.loads(server),
            "edge": edge,
        }  # fmt: skip
        return Look(diagnose(document, again=again), document, time.time() - start)

    def diagnose(self):
        """Do what playbooks/diagnose.yml does: look, and once more when the stack was being changed."""
        first = self.look()
        if not first.diagnosis.waiting:
            return first
        time.sleep(3)
        return self.look(again=True)

    def healthy(self, seconds=90):
        """Wait until nothing is found; fail with what is, after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            look = self.look(again=True)
            if not look.diagnosis.findings and not look.diagnosis.waiting:
                return look
            assert time.monotonic() < end, look.diagnosis
            time.sleep(1)


def site_from_environment():
    """Return the site, or None where the environment names none."""
    return Site(os.environ) if "ORIGIN_CONTAINER" in os.environ else None
