"""README's Production steps, literally and in order: each test needs those before it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.kit.playbook import changed, words
from tests.kit.process import REPOSITORY

STATE = Path(os.environ.get("TESTBED_STATE_DIR", "."))
CONTROL_NODE = f"{os.environ.get('TESTBED_NAME', '')}-control"
CHECKOUT = "/home/operator/screen-flow"
MINE = "inventories/mine"
# The emulation's variables, which README's commands get as one more option.
EMULATION = "/home/operator/emulation.yml"
PLAY = f'export PATH="$PWD/.venv/bin:$PATH"; ansible-playbook -i {MINE} -e @{EMULATION}'
# Files that change without a run: those of users, services and Python.
VOLATILE = "|".join(
    (
        "/(proc|sys|dev|run|tmp|srv|home|root)",
        "/var/(log|tmp|lib/(private|sudo|systemd|docker|containerd))",
        "/var/cache/ldconfig",
        ".*/__pycache__",
    )
)
# The tags that README and the runbook give to site.yml.
TAGS = sorted(
    {
        tags
        for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs/runbook").glob("*.md")]
        for tags in re.findall(r"site\.yml --tags ([a-z_,]+)", page.read_text())
    }
)


def docker(*command: str, **options: str) -> str:
    """Run docker; return its output. Raises AssertionError with its errors."""
    ran = subprocess.run(("docker", *command), check=False, capture_output=True, text=True, **options)
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def git(*command: str) -> str:
    """Run git in this repository; return its output. Raises CalledProcessError."""
    return subprocess.run(
        ("git", "-C", REPOSITORY, *command), check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def operator(command: str, check: bool = True) -> str:
    """Run a command in the operator's shell, in the checkout; return its output with the errors."""
    ran = subprocess.run(
        (
            "docker", "exec", "--user", "operator", "--workdir", CHECKOUT,
            "--env", "ANSIBLE_VAULT_PASSWORD_FILE=/home/operator/vault-password", "--env", "COLUMNS=160",
            CONTROL_NODE, "bash", "-c", command,
        ),
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert (ran.returncode == 0) == check, ran.stdout
    return ran.stdout


def site(options: str = "", check: bool = True) -> str:
    """Run site.yml as README does; return its output."""
    return operator(f"{PLAY} site.yml {options}", check)


def write(path: str, content: str) -> None:
    """Write a file as the operator."""
    docker("exec", "--interactive", "--user", "operator", CONTROL_NODE, "tee", path, input=content)


def edit(path: str, *changes: tuple[str, str]) -> None:
    """Replace texts that are in the file once, as the operator would in an editor."""
    content = operator(f"cat {path}")
    for old, new in changes:
        assert content.count(old) == 1, f"{path}: {old}"
        content = content.replace(old, new)
    write(f"{CHECKOUT}/{path}", content)


@pytest.fixture(scope="module")
def address(host):
    """The server's address."""
    return host.interface("eth0").addresses[0]


def files_of(host) -> set[str]:
    """Return path, mode, size and time of the server's files that only a run changes."""
    found = host.run_expect([0], r"find / -xdev ! -type d -printf '%p %m %s %T@\n'").stdout
    return {line for line in found.splitlines() if not re.match(f"({VOLATILE})[/ ]", line)}


def test_the_control_node_is_installed_without_root(address):
    """Step 1."""
    clone, bare = STATE / "checkout.git", "/home/operator/checkout.git"
    # Including uncommitted changes.
    commit = (
        git("-c", "user.name=operator", "-c", "user.email=operator@example.com", "stash", "create") or "HEAD"
    )
    git("init", "--quiet", "--bare", "--initial-branch=main", str(clone))
    git("push", "--quiet", "--force", str(clone), f"{commit}:refs/heads/main")
    docker("cp", "--quiet", str(clone), f"{CONTROL_NODE}:{bare}")
    docker("exec", "--user", "root", CONTROL_NODE, "chown", "-R", "operator:operator", bare)
    docker("exec", CONTROL_NODE, "git", "clone", "--quiet", bare, CHECKOUT)
    operator("scripts/setup python")
    operator("! command -v sudo && ! test -w /etc")
    operator(f"ssh-keyscan {address} > ~/.ssh/known_hosts")
    assert "Permission denied" in operator(f"ssh -o BatchMode=yes root@{address} true", check=False)


def test_the_inventory_is_filled_in(address, control):
    """Steps 2 and 3."""
    operator(f"cp -r inventories/production {MINE}")
    edit(
        f"{MINE}/hosts.yml",
        ("origin.example.com:", f"{address}:"),
        ("      ansible_user: root\n", ""),
        ("      # ansible_user: deploy\n", "      ansible_user: deploy\n"),
        ("      # ansible_become: true\n", "      ansible_become: true\n"),
    )
    edit(
        f"{MINE}/group_vars/all/site.yml",
        # The emulated zone has the template's names.
        ("site_zone: example.com\n", "site_zone: example.com\n"),
        ("site_domain: www.example.com\n", "site_domain: www.example.com\n"),
        ("site_origin_addresses: []\n", f"site_origin_addresses: [{address}]\n"),
        (
            "# docker_engine_source: docker\n",
            "docker_engine_source: docker\n"
            "docker_engine_repository_url: https://packages.internal/linux/debian\n",
        ),
    )
    vault = f"{MINE}/group_vars/all/vault.yml"
    operator(f"cp {vault}.example {vault}")
    token = (STATE / "token").read_text().strip()
    edit(vault, ('vault_cloudflare_zone_api_token: ""', f'vault_cloudflare_zone_api_token: "{token}"'))
    write("/home/operator/vault-password", "correct horse battery staple\n")
    operator(f'export PATH="$PWD/.venv/bin:$PATH"; ansible-vault encrypt {vault}')
    assert operator(f"cat {vault}").startswith("$ANSIBLE_VAULT;")
    docker("cp", "--quiet", str(STATE / "edge-ca.pem"), f"{CONTROL_NODE}:/home/operator/edge-ca.pem")
    bundle = "/etc/ssl/certs/company.pem" if os.environ.get("BUILD_CA_BUNDLE") else ""
    emulation = {
        "site_cloudflare_api_base_url": control.api,
        "site_edge_private": True,
        "site_edge_address": "127.0.0.1",
        "site_edge_port": int(os.environ["TESTBED_PORT_HTTPS"]),
        "site_edge_ca_file": "/home/operator/edge-ca.pem",
        "app_stack_build_ca_bundle": bundle,
    }
    write(EMULATION, json.dumps(emulation))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"site_zone": "example.org", "site_domain": "www.example.org"}, ["example.org", "zone"]),
        ({"vault_cloudflare_zone_api_token": "0" * 40}, ["token"]),
        ({"docker_engine_source": "distribution"}, ["set docker_engine_source to docker", "Debian 12"]),
        ({"docker_engine_repository_url": "http://packages.internal/"}, ["docker_engine_repository_url"]),
        ({"nginx_tls_curves": ["X25519MLKEM768"]}, ["nginx_tls_curves", "Debian 12", "X25519MLKEM768"]),
        # With sudo, too, the run knows the address that it comes from.
        ({"origin_firewall_ssh_ranges": ["192.0.2.0/24"]}, ["origin_firewall_ssh_ranges", "lock itself out"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_invalid_input_is_reported_before_anything_is_built(variables, expected):
    output = site(f"--check --diff -e '{json.dumps(variables)}'", check=False)
    assert all(text in words(output) for text in expected), output
    assert changed(output) == 0
    assert "PLAY [Provision the origin]" not in output


def test_the_dry_run_of_the_bare_server_succeeds_and_changes_nothing(host, control):
    """Step 4."""
    before = files_of(host), control.state()
    output = site("--check --diff")
    after = files_of(host), control.state()
    assert after[0] - before[0] == set()
    assert before[0] - after[0] == set()
    assert after[1] == before[1]
    assert "docker-ce" in output
    assert "+++ after" in output


def test_the_server_has_the_base_image_that_it_would_pull(host):
    """Without a registry the engine is installed first, and the image loaded into it."""
    site("--tags docker_engine")
    host.run_expect([0], "docker load --input /srv/images/debian-trixie-slim.tar")
    policy = host.run_expect([0], "apt-cache policy docker-ce").stdout
    assert "https://packages.internal/linux/debian bookworm/stable" in policy


def every_line_is_ok(output: str) -> bool:
    """Return whether the checklist at the end of a run has no other line.

    But for one warning: the kernel of a test machine may not enforce the containers' limits.
    """
    counted = re.search(r"(\d+) of (\d+) lines are ok(, 1 warning)?\.", output)
    assert counted, output
    warned = "Limits of the containers" in output and bool(counted[3])
    return int(counted[1]) == int(counted[2]) - warned > 0


def test_the_run_brings_the_site_up(host):
    """Step 5."""
    output = site()
    assert every_line_is_ok(output), output
    assert host.file("/etc/debian_version").content_string.startswith("12")


def test_updates_of_docker_s_own_packages_are_installed_unattended(host):
    assert "origin=Docker,label=Docker CE" in host.check_output("apt-config dump Unattended-Upgrade")


def test_a_second_run_changes_nothing():
    output = site()
    assert changed(output) == 0, output
    assert "[WARNING]" not in output, output
    assert every_line_is_ok(output), output


@pytest.mark.parametrize("tags", TAGS)
def test_a_dry_run_of_some_tags_works(tags):
    output = site(f"--tags {tags} --check --diff")
    assert changed(output) == 0, output


def test_origin_and_edge_present_their_certificates(control):
    """Step 6."""
    for setting in ("site_origin_certificate: origin_ca", "site_origin_pulls: true"):
        edit(f"{MINE}/group_vars/all/site.yml", (f"# {setting}\n", f"{setting}\n"))
        output = site()
        assert every_line_is_ok(output), output
    assert control.ssl_mode() == "strict"
    output = site("--check --diff")
    assert changed(output) == 0, output


def test_the_token_is_not_on_the_server(host):
    token = (STATE / "token").read_text().strip()
    # The one file that has it, to show that the search finds it.
    host.run_expect([0], "echo %s > /root/token-of-the-test", token)
    try:
        found = host.run(
            "grep -rlsF --exclude-dir=proc --exclude-dir=sys %s /etc /opt /root /home /var/log /tmp", token
        )
    finally:
        host.run_expect([0], "rm /root/token-of-the-test")
    assert found.stdout.split() == ["/root/token-of-the-test"]
