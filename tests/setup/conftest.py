"""Machines for tests/setup: Debian as it comes, with nothing but a checkout."""

import ast
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.site import mtu

PROJECT = Path(__file__).resolve().parents[2]
CHECKOUT = "/srv/checkout"
CA_BUNDLE = "/run/build-ca.pem"
NAME = f"screen-flow{os.environ.get('TESTBED_SUFFIX', '')}-setup"
# What an engine inside needs, and what makes its image.
CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN"]


@dataclass(frozen=True)
class Machine:
    """A pristine system in a container."""

    release: str
    name: str

    def run(self, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell's command in the checkout; its output holds the errors too."""
        return subprocess.run(
            ["docker", "exec", "--workdir", CHECKOUT, self.name, "sh", "-c", command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip

    def output(self, command: str, timeout: float = 60) -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.run(command, timeout)
        assert done.returncode == 0, f"{command} on {self.release}:\n{done.stdout}"
        return done.stdout


def docker(*arguments: str, **options: object) -> None:
    subprocess.run(["docker", *arguments], check=True, stdout=subprocess.DEVNULL, **options)


def index_settings() -> dict[str, str]:
    """Return the environment by which pip inside reaches the indexes that pip here does."""
    settings = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    listed = subprocess.run(["pip", "config", "list"], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "trusted-host", "proxy"):
            # A folder of this machine is not there inside. The environment comes first, and counts first.
            words = [word for word in ast.literal_eval(value).split() if not word.startswith("file:")]
            settings.setdefault(f"PIP_{option.upper().replace('-', '_')}", " ".join(words))
    return {name: value for name, value in settings.items() if value}


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh system with a copy of what git knows of this checkout."""
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
            shell=True, cwd=PROJECT, check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        docker("exec", "--interactive", machine.name, "tar", "-x", "-C", CHECKOUT, input=packed.stdout)
        yield machine
    finally:
        remove(machine.name)


def remove(name: str) -> None:
    for command in (["rm", "--force", "--volumes"], ["network", "rm"]):
        subprocess.run(["docker", *command, name], check=False, capture_output=True)
