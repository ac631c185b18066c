"""The wiring between roles is written once, in playbooks/group_vars; an inventory can override each line."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kit.ansible_files import tasks
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


def arguments(item):
    """Yield the mappings in a task, its modules' arguments and defaults among them."""
    for value in item.values():
        if isinstance(value, dict):
            yield value
            yield from arguments(value)


def test_what_names_the_zone_gives_its_id_as_well():
    """A name alone is ambiguous where two accounts have it."""
    named = [
        found for task in tasks() for found in arguments(task.item) if {"zone", "api_token"} <= found.keys()
    ]
    assert len(named) > 5
    assert [found for found in named if "zone_id" not in found] == []


def test_the_zones_id_reaches_every_role_that_names_the_zone(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + f"site_zone_id: {'a1' * 16}\n")
    roles = [
        line
        for line in load(WIRING / "roles.yml")
        if line.endswith("_zone_id") or line == "cloudflare_zone_id"
    ]
    assert len(roles) == 4
    for role in roles:
        assert value(inventory, role) == "a1" * 16


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


def defaults():
    """Return the default of every role input."""
    return {
        name: option.get("default")
        for specs in (PROJECT / "roles").glob("*/meta/argument_specs.yml")
        for name, option in load(specs)["argument_specs"]["main"]["options"].items()
    }


def test_each_wired_name_is_an_input_of_a_role_and_takes_it_from_the_site():
    wired = load(WIRING / "roles.yml")
    assert wired.keys() <= defaults().keys(), wired.keys() - defaults().keys()
    assert all(name.startswith("site_") for name in load(WIRING / "site.yml"))


def test_an_input_that_is_wired_to_a_fixed_value_has_the_role_s_default():
    fixed = {name: value for name, value in load(WIRING / "roles.yml").items() if "{{" not in str(value)}
    assert len(fixed) > 5
    assert fixed == {name: defaults()[name] for name in fixed}


@pytest.mark.parametrize("path", sorted((PROJECT / "playbooks").rglob("*.yml")), ids=lambda path: path.name)
def test_playbooks_write_no_default_of_a_setting_or_role_input(path):
    names = defaults().keys() | load(WIRING / "site.yml").keys()
    repeated = set(re.findall(r"\b(\w+) \| default\(", path.read_text())) & names
    assert not repeated, f"set the default in playbooks/group_vars: {repeated}"


def test_scenarios_with_plays_of_their_own_see_the_wiring():
    for converge in (PROJECT / "molecule").glob("*/converge.yml"):
        assert (converge.parent / "group_vars").resolve() == WIRING.parent, converge


@pytest.mark.parametrize(
    ("settings", "upstream"),
    [
        ("", "unix:/opt/screen-flow/run/api.sock"),
        ("app_stack_dir: /srv/site\n", "unix:/srv/site/run/api.sock"),
        # Your own image is expected to listen on its port only, unless site_api_socket is true.
        ("app_stack_image: registry.example.com/api:1\nsite_api_port: 9000\n", "127.0.0.1:9000"),
        (
            "app_stack_image: registry.example.com/api:1\nsite_api_socket: true\n",
            "unix:/opt/screen-flow/run/api.sock",
        ),
        ("site_api_socket: 'false'\n", "127.0.0.1:8000"),
    ],
)
def test_api_nginx_and_probes_use_the_same_upstream(inventory, settings, upstream):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + settings)
    assert value(inventory, "nginx_upstream_servers") == [upstream]
    assert value(inventory, "site_check_upstream") == upstream
    assert value(inventory, "app_stack_socket") == upstream.startswith("unix:")


OWN_PATH = "app_stack_image: registry.example.com/api:1\nsite_websocket_path: /live/\n"


def preflight(inventory):
    """Run the checks of the site's settings, which come before all others."""
    return subprocess.run(
        [
            "ansible-playbook", "--inventory", inventory, "playbooks/preflight.yml", "--tags", "always",
            "-e", json.dumps({"site_cloudflare_api_token": "token", "site_edge_ranges": ["192.0.2.0/24"]}),
        ],
        cwd=PROJECT, capture_output=True, text=True, check=False,
        env=os.environ | {"ANSIBLE_CONFIG": "ansible.cfg"},
    )  # fmt: skip


def test_nginx_edge_and_probes_obey_the_websocket_path(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + OWN_PATH)
    for role in ("nginx", "cloudflare_zone", "site_check"):
        assert value(inventory, f"{role}_websocket_path") == "/live/"
    assert preflight(inventory).returncode == 0


def test_preflight_refuses_a_websocket_path_that_the_reference_backend_does_not_serve(inventory):
    assert preflight(inventory).returncode == 0
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + OWN_PATH.split("\n")[1])
    refused = preflight(inventory)
    assert refused.returncode == 2
    message = " ".join(refused.stdout.split())
    assert "site_websocket_path is '/live/'" in message
    assert "set app_stack_image" in message


def test_certificate_nginx_records_and_probes_have_the_aliases(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + "site_aliases: [example.com]\n")
    roles = ("origin_certificate", "nginx", "cloudflare_zone", "site_check")
    assert value(inventory, f"[{', '.join(f'{role}_aliases' for role in roles)}]") == [["example.com"]] * 4
    assert value(inventory, "nginx_server_names + nginx_allowed_origins") == [
        "www.example.com",
        "https://www.example.com",
    ]
    assert preflight(inventory).returncode == 0


# An alias and what the sentence about it has to say.
ALIASES = {
    "b\u00fccher.example.com": "in Unicode; use its ASCII form, 'xn--bcher-kva.example.com'",
    "Stra\u00dfe.example.com": "in Unicode; use its ASCII form, 'xn--strae-oqa.example.com'",
    "*.example.com": "a wildcard; list the names themselves",
    "App.example.com": "in upper case; use 'app.example.com'",
    "app.example.com.": "with a dot at its end; use 'app.example.com'",
    "app example.com": "not a host name; use one such as www.example.com",
    "https://app.example.com": "not a host name",
    "www.example.org": "not in the zone example.com",
    "notexample.com": "not in the zone example.com",
    "www.example.com": "site_domain itself; leave it out",
    "7": "not a host name",
}


def test_preflight_explains_each_alias_that_can_not_work(inventory):
    site = inventory / "group_vars/all/site.yml"
    named = [*ALIASES, "example.com", "example.com"]
    site.write_text(site.read_text() + f"site_aliases: {json.dumps(named)}\n")
    refused = preflight(inventory)
    assert refused.returncode == 2
    message = " ".join(refused.stdout.split())
    for name, words in ALIASES.items():
        assert f"has '{name}', which is {words}" in message
    # The output has the message twice.
    assert message.count("has 'example.com', which is there twice; leave one out") == 2


def test_preflight_says_the_ascii_form_of_the_site_s_name(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text().replace("www.example.com", "b\u00fccher.example.com"))
    refused = preflight(inventory)
    assert refused.returncode == 2
    message = " ".join(refused.stdout.split())
    assert "use their ASCII forms, 'example.com' and 'xn--bcher-kva.example.com'" in message


def test_preflight_refuses_aliases_as_text(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + "site_aliases: example.com\n")
    refused = preflight(inventory)
    assert refused.returncode == 2
    assert "site_aliases is 'example.com'; use a list of host names" in " ".join(refused.stdout.split())


def test_operations_use_the_stack_s_directory(inventory):
    site = inventory / "group_vars/all/site.yml"
    site.write_text(site.read_text() + "app_stack_dir: /srv/site\n")
    assert value(inventory, "site_check_compose_dir", folder=PROJECT / "playbooks") == "/srv/site"
    assert value(inventory, "site_check_probe_key_file") == "/srv/site/secrets/probe_key"
