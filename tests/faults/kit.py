"""A running site to break: its server through the engine, its emulated Cloudflare, and its diagnosis."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import yaml

from tests.kit.playbook import run_playbook
from tests.kit.process import REPOSITORY

WIRING = yaml.safe_load((REPOSITORY / "playbooks/group_vars/all/site.yml").read_text())
WEBSOCKET_PATH = WIRING["site_websocket_path"]
CACHE_RULES = "/rulesets/phases/http_request_cache_settings/entrypoint"
PEM = "/etc/ssl/certs/screen-flow-origin.pem"
KEY = "/etc/ssl/private/screen-flow-origin.key"
SAVED = "/opt/site-faults"
ALIAS = "www.screen-flow.localhost"  # site_aliases of inventories/demo
RELOAD = "nginx -t -q && systemctl reload nginx && sleep 0.3"
# Fields of a rule that Cloudflare's API accepts.
WRITABLE = ("action", "action_parameters", "expression", "description", "enabled", "ref")


@dataclass(frozen=True)
class Look:
    """One run of playbooks/diagnose.yml: the file it wrote, its output, exit code and seconds."""

    record: dict
    output: str
    status: int
    seconds: float

    @property
    def findings(self):
        """Return the findings by rule."""
        return {finding["rule"]: finding for finding in self.record["findings"]}

    @property
    def collections(self):
        """Return how often evidence was collected: twice if a recent start may explain the first."""
        return self.output.count("evidence | Collect evidence from outside]")

    @property
    def is_healthy(self):
        return not self.record["findings"] and not self.record["waiting"]


class Site:
    """The site that `.demo/…/env` names."""

    def __init__(self, env, folder):
        self.url = env["SITE_URL"]
        self.host = urlsplit(self.url).hostname
        self.port = urlsplit(self.url).port or 443
        self.container = env["ORIGIN_CONTAINER"]
        self.ca_file = env["EDGE_CA_FILE"]
        self.saved = {}
        self._record = folder / "diagnosis.json"
        self._api_url = env["EMULATOR_API_URL"]
        self._token = (Path(self.ca_file).parent / "token").read_text().strip()
        # The emulated edge lists only its own address.
        ranges = httpx.get(f"{self._api_url}/ips").raise_for_status().json()["result"]
        self.edge_address = ranges["ipv4_cidrs"][0]
        control = urlsplit(self._api_url)._replace(path="/_emulator").geturl()
        self._control = httpx.Client(base_url=control, timeout=10, trust_env=False)
        self._key = self.sh("head -n 1 /opt/screen-flow/secrets/probe_key").strip()
        self._zone_id = self.cloudflare("GET", "state")["zone"]["id"]

    def sh(self, command, check=True, text=None):
        """Run a shell command on the server; return its output."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.container, "sh", "-c", command],
            input=text, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def compose(self, arguments, text=None):
        """Run docker compose on the server."""
        return self.sh(f"cd /opt/screen-flow && docker compose {arguments}", text=text)

    def redis_cli(self, commands):
        """Run commands, one per line, as Redis's operator; return their output."""
        return self.compose("exec -T redis redis-cli", text=commands)

    def cloudflare(self, method, path, body=None):
        """Read or set the emulated Cloudflare's state."""
        answer = self._control.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def api(self, method, path, body=None):
        """Call Cloudflare's API below the zone; return the result."""
        url, headers = (
            f"{self._api_url}/zones/{self._zone_id}{path}",
            {"Authorization": f"Bearer {self._token}"},
        )
        answer = httpx.request(method, url, headers=headers, json=body, timeout=10, trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.json()["result"]

    def cookie(self, user):
        """Return the Cookie header of a probe's session."""
        now = int(time.time())
        token = jwt.encode({"sub": user, "iat": now, "exp": now + 120}, self._key, algorithm="HS256")
        return f"__Host-screen-flow={token}"

    def diagnose(self):
        """Run playbooks/diagnose.yml over the site, with the site's own variables."""
        self._record.unlink(missing_ok=True)
        start = time.monotonic()
        done = run_playbook("playbooks/diagnose.yml", site_check_diagnosis_file=str(self._record))
        seconds = time.monotonic() - start
        assert self._record.exists(), done.stdout + done.stderr
        return Look(json.loads(self._record.read_text()), done.stdout, done.returncode, seconds)

    def wait_until_healthy(self, seconds=90):
        """Diagnose until nothing is found; return the last look, or fail after `seconds`."""
        end = time.monotonic() + seconds
        while not (look := self.diagnose()).is_healthy:
            assert time.monotonic() < end, look.output
            time.sleep(1)
        return look

    def save(self):
        """Save what the faults change, so that reverting is exact."""
        self.sh(f"rm -rf {SAVED} && mkdir -p {SAVED}")
        self.sh(f"cp -a /etc/nginx {SAVED}/nginx && cp -a {PEM} {KEY} {SAVED}/")
        state = self.cloudflare("GET", "state")
        rules = (self.api("GET", CACHE_RULES) or {}).get("rules", [])
        self.saved = {
            "settings": {
                name: state["settings"][name]["value"] for name in ("ssl", "websockets", "rocket_loader")
            },
            "dns": [
                {key: record[key] for key in ("type", "name", "content", "proxied")}
                for record in state["dns"]
            ],
            "rules": [{key: rule[key] for key in WRITABLE if key in rule} for rule in rules],
            "maxmemory": self.redis_cli("CONFIG GET maxmemory\n").split()[-1],
        }

    def remove_saved(self):
        """Remove what `save` copied on the server."""
        self.sh(f"rm -rf {SAVED}")


Step = Callable[[Site], object]


@dataclass(frozen=True)
class Fault:
    """One fault, in the file of its layer.

    `rule` is the rule that has to find it, and `cause` a part of the cause that the finding has to report.
    `touches` names what the fault changes: two faults that share it can't be injected together.
    """

    rule: str
    cause: str
    inject: Step
    revert: Step
    touches: set[str]
    layer: str = ""  # the name of its file


def shell(command: str) -> Step:
    """Return a step: a shell command on the server."""
    return lambda site: site.sh(command)


def both(*steps: Step) -> Step:
    """Return a step that runs several."""

    def run(site):
        for step in steps:
            step(site)

    return run


def edit(file, *commands):
    """Return a step: sed's commands on one file of nginx, then a reload."""
    script = " ".join(f"-e '{command}'" for command in commands)
    return shell(f"sed -i {script} {file} && {RELOAD}")


def restore_nginx(site):
    """Restore nginx's configuration and the certificate, and reload."""
    names = ((PEM, PEM.rpartition("/")[2]), (KEY, KEY.rpartition("/")[2]))
    pair = " && ".join(f"cp -a {SAVED}/{name} {file}" for file, name in names)
    site.sh(f"cp -a {SAVED}/nginx/. /etc/nginx/ && {pair} && {RELOAD}")


def start_stack(site):
    """Start what is stopped or changed."""
    # Without --wait: that fails when a busy machine is too slow for a health check; the suite waits itself.
    site.compose("up --detach")


def stop(service):
    """Return a step: stop a service of the stack."""
    return lambda site: site.compose(f"stop --timeout 5 {service}")


def edit_in(service, file, expression):
    """Return a step: sed on a file of a container, past its read-only root."""

    def run(site):
        container = site.compose(f"ps --quiet {service}").strip()
        merged = site.sh(f"docker inspect --format '{{{{.GraphDriver.Data.MergedDir}}}}' {container}").strip()
        site.sh(f"sed -i '{expression}' {merged}/{file}")

    return run


def setting(**values):
    """Return a step: set settings of the zone without Cloudflare's API, as in the dashboard."""
    return lambda site: site.cloudflare("PATCH", "settings", values)


def restore_settings(site):
    """Restore the zone's settings."""
    site.cloudflare("PATCH", "settings", site.saved["settings"])
