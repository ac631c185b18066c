"""README's commands on a fresh control node: Debian 12 and 13, each with its newest Ansible."""

import json
import sys

import pytest

ANSIBLE_CORE = {(3, 11): "2.19.", (3, 13): "2.21."}
COLLECTIONS = {
    "ansible.utils",
    "community.crypto",
    "community.docker",
    "community.general",
    "community.library_inventory_filtering_v1",
}
ON_PATH = 'PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg"'


@pytest.fixture(scope="module")
def installed(machine):
    """The machine after `scripts/setup`, with which scripts/demo begins."""
    done = machine.run("scripts/setup", timeout=900)
    assert done.returncode == 0, f"scripts/setup on {machine.release}:\n{done.stdout}"
    return machine


def python_of(machine):
    return tuple(json.loads(machine.output("python3 -c 'import sys; print(list(sys.version_info[:2]))'")))


def test_the_engine_answers_and_has_the_base_image(installed):
    assert "Server Version:" in installed.output("docker info")
    assert "debian:trixie-slim" in installed.output("docker image ls --format '{{.Repository}}:{{.Tag}}'")
    installed.output("tar -tf .cache/debian-trixie-slim.tar")
    installed.output("command -v ssh ssh-keygen ip")


def test_ansible_is_the_newest_for_the_machines_python(installed):
    version = installed.output(f"{ON_PATH} ansible --version")
    assert f"[core {ANSIBLE_CORE[python_of(installed)]}" in version


def test_exactly_the_needed_collections_are_installed(installed):
    listed = installed.output(f"{ON_PATH} ansible-galaxy collection list --format json 2>/dev/null")
    found = {name for folder in json.loads(listed).values() for name in folder}
    # The repository's own is found beside them, by collections_path.
    assert found - {"ansible._protomatter"} == COLLECTIONS | {"screen_flow.live"}
    # --offline: nothing must be downloaded.
    output = installed.output(f"{ON_PATH} ansible-galaxy collection install --offline -r requirements.yml")
    assert "Nothing to do" in output


def test_the_playbooks_parse(installed):
    for inventory in ("demo", "production"):
        installed.output(f"{ON_PATH} ansible-playbook -i inventories/{inventory} --syntax-check site.yml")


def test_an_operators_install_is_small(installed):
    # A fifth of the 1613 MB with Ansible's whole bundle and the tests' packages.
    assert int(installed.output("du -sm .venv").split()[0]) <= 322


def test_a_second_run_does_nothing(installed):
    assert installed.output("scripts/setup", timeout=10) == ""


def test_a_missing_docker_command_is_reported(installed):
    docker = installed.output("command -v docker").strip()
    installed.output(f"mv {docker} /srv/docker")
    try:
        done = installed.run("scripts/setup engine")
    finally:
        installed.output(f"mv /srv/docker {docker}")
    assert done.returncode == 1
    assert "docker command not found" in done.stdout


def test_an_engine_that_does_not_answer_is_reported_with_the_reason(installed):
    done = installed.run("setpriv --reuid=65534 --clear-groups scripts/setup engine")
    assert done.returncode == 1
    assert "cannot connect to Docker Engine" in done.stdout
    assert "permission denied" in done.stdout


def test_the_code_passes_on_the_other_python(installed):
    # This machine has one of the two Pythons; the tests that need no more than Python run on the other, too.
    if python_of(installed) == sys.version_info[:2]:
        pytest.skip("the same Python as on this machine, where scripts/test quick runs them")
    installed.output("scripts/setup tests", timeout=900)
    installed.output(f"{ON_PATH} pytest -q tests/unit tests/emulator", timeout=900)
    installed.output(f"{ON_PATH} pytest -q tests/templates tests/lookup", timeout=300)
    # Another ansible-core, too, whose checks of the collection differ.
    installed.output("scripts/sanity", timeout=600)
