"""The wiring between roles stands once, in playbooks/group_vars; an inventory overrides any line of it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.kit.playbook import run_playbook

PROJECT = Path(__file__).parents[2]
WIRING = PROJECT / "playbooks/group_vars/all"
PRODUCTION = PROJECT / "inventories/production"
# From the root, as site.yml, and from playbooks/, as all others.
FOLDERS = [PROJECT, PROJECT / "playbooks"]


def load(path):
    return yaml.safe_load(path.read_text()) or {}


@pytest.fixture
def inventory(tmp_path):
    copied = tmp_path / "production"
    shutil.copytree(PRODUCTION, copied)
    return copied


def value(inventory, variable, host="origin.example.com", folder=PROJECT):
    """Return a variable as a playbook in `folder` sees it."""
    task = {"ansible.builtin.debug": {"var": variable}}
    # A playbook's group_vars lie beside it.
    playbook = folder / f".test-wiring-{inventory.parent.name}.yml"
    playbook.write_text(json.dumps([{"hosts": host, "gather_facts": False, "tasks": [task]}]))
    try:
        ran = run_playbook(
            playbook, inventory=inventory, environment={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        )
    finally:
        playbook.unlink()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout[ran.stdout.index("=> {") + 3 : ran.stdout.index("\n}") + 2])[variable]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("host", ["origin.example.com", "cloudflare"])
def test_every_host_and_playbook_sees_the_wiring(inventory, host, folder):
    assert value(inventory, "cloudflare_zone_name", host, folder) == "example.com"


def test_what_the_inventory_sets_for_all_hosts_overrides_the_wiring(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + "cloudflare_zone_ssl: flexible\nsite_heartbeat_seconds: 7\n")
    assert value(inventory, "cloudflare_zone_ssl") == "flexible"
    assert value(inventory, "app_stack_heartbeat_seconds") == 7


def test_the_zone_is_named_in_one_place_of_the_inventory():
    named = [
        path.name
        for path in PRODUCTION.rglob("*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if not line.lstrip().startswith("#") and line.split(":")[-1].strip() == "example.com"
    ]
    assert named == ["site.yml"]


def test_an_inventory_is_three_files_to_fill_in():
    files = sorted(str(path.relative_to(PRODUCTION)) for path in PRODUCTION.rglob("*") if path.is_file())
    assert files == ["group_vars/all/site.yml", "group_vars/all/vault.yml.example", "hosts.yml"]


def test_each_wired_name_is_an_input_of_a_role_and_takes_it_from_the_site():
    inputs = {
        name
        for specs in (PROJECT / "roles").glob("*/meta/argument_specs.yml")
        for name in load(specs)["argument_specs"]["main"]["options"]
    }
    wired = load(WIRING / "roles.yml")
    assert wired.keys() <= inputs, wired.keys() - inputs
    assert all(name.startswith("site_") for name in load(WIRING / "site.yml"))


def test_scenarios_with_plays_of_their_own_see_the_wiring():
    for converge in (PROJECT / "molecule").glob("*/converge.yml"):
        assert (converge.parent / "group_vars").resolve() == WIRING.parent, converge


@pytest.mark.parametrize(
    ("settings", "upstream"),
    [
        ("", "unix:/opt/screen-flow/run/api.sock"),
        ("app_stack_dir: /srv/site\n", "unix:/srv/site/run/api.sock"),
        # An image of your own listens on its port, unless you say that it knows the socket.
        ("app_stack_image: registry.example.com/api:1\nsite_api_port: 9000\n", "127.0.0.1:9000"),
        (
            "app_stack_image: registry.example.com/api:1\nsite_api_socket: true\n",
            "unix:/opt/screen-flow/run/api.sock",
        ),
        ("site_api_socket: 'false'\n", "127.0.0.1:8000"),
    ],
)
def test_api_nginx_and_probes_agree_on_the_way(inventory, settings, upstream):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + settings)
    assert value(inventory, "nginx_upstream_servers") == [upstream]
    assert value(inventory, "site_check_upstream") == upstream
    assert value(inventory, "app_stack_socket") == upstream.startswith("unix:")
