"""Machines for tests/setup: a minimal Debian with a checkout."""

import ast
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.process import REPOSITORY
from tests.kit.site import mtu

CHECKOUT = "/srv/checkout"
CA_BUNDLE = "/run/build-ca.pem"
NAME = f"screen-flow{os.environ.get('TESTBED_SUFFIX', '')}-setup"
# For an engine inside, and for building its image.
CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN"]


@dataclass(frozen=True)
class Machine:
    """A pristine system in a container."""

    release: str
    name: str

    def run(self, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the checkout; the output includes the errors."""
        return subprocess.run(
            ["docker", "exec", "--workdir", CHECKOUT, self.name, "sh", "-c", command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip

    def output(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; return its output."""
        done = self.run(command, timeout)
        assert done.returncode == 0, f"{command} on {self.release}:\n{done.stdout}"
        return done.stdout


def docker(*arguments: str, **options: object) -> None:
    subprocess.run(["docker", *arguments], check=True, stdout=subprocess.DEVNULL, **options)


def index_settings() -> dict[str, str]:
    """Return an environment in which pip uses the same indexes as on this machine."""
    settings = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    listed = subprocess.run(["pip", "config", "list"], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "trusted-host", "proxy"):
            # Folders of this machine do not exist inside. The environment is listed first and wins.
            urls = [url for url in ast.literal_eval(value).split() if not url.startswith("file:")]
            settings.setdefault(f"PIP_{option.upper().replace('-', '_')}", " ".join(urls))
    return {name: value for name, value in settings.items() if value}


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh system with the files of this checkout that git tracks."""
    machine = Machine(request.param, f"{NAME}-{request.param}")
    options = [f"--cap-add={capability}" for capability in CAPABILITIES]
    environment = index_settings()
    if bundle := os.environ.get("BUILD_CA_BUNDLE"):
        options.append(f"--volume={Path(bundle).resolve()}:{CA_BUNDLE}:ro")
        environment["PIP_CERT"] = CA_BUNDLE
    options += [f"--env={name}={value}" for name, value in environment.items()]
    remove(machine.name)
    try:
        docker("network", "create", "--opt", f"com.docker.network.driver.mtu={mtu()}", machine.name)
        docker(
            "run", "--detach", "--init", f"--name={machine.name}", f"--network={machine.name}",
            # Docker inside needs a file system that is not an overlay.
            "--volume=/var/lib/docker", "--volume=/var/lib/containerd", "--tmpfs=/run",
            "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
            *options, f"debian:{machine.release}-slim", "sleep", "infinity",
        )  # fmt: skip
        docker("exec", machine.name, "mkdir", CHECKOUT)
        packed = subprocess.run(
            "git ls-files -z | tar -c --null --files-from=-",
            shell=True, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        docker("exec", "--interactive", machine.name, "tar", "-x", "-C", CHECKOUT, input=packed.stdout)
        yield machine
    finally:
        remove(machine.name)


def remove(name: str) -> None:
    for command in (["rm", "--force", "--volumes"], ["network", "rm"]):
        subprocess.run(["docker", *command, name], check=False, capture_output=True)
