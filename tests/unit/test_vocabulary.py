"""One vocabulary: layers, roles, tags, checklist and probes are those of CONTRIBUTING.md's table."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis import checklist

try:
    from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.engine import LAYERS
except ImportError:
    from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import LAYERS
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES

PROJECT = Path(__file__).parents[2]
ROLES = {role.name for role in (PROJECT / "roles").iterdir()}
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
# The parts of the checklist that test the whole path.
WHOLE_PATH = {"socket", "events"}
# site.yml or playbooks/NAME.yml, then its tags, as in a command line or a sentence.
TAGGED = re.compile(r"(site\.yml|playbooks/\w+\.yml)(?: [^\n|`:]*?)?\s--tags[ =]([a-z_,]+)")


def vocabulary():
    """Return the table of CONTRIBUTING.md: the roles, checklist and probes of each layer."""
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"(?m)^\| `(\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", text.split("## Vocabulary")[1])
    return {layer: [re.findall(r"`(\w+)`", cell) for cell in cells] for layer, *cells in rows}


TABLE = vocabulary()
OWNERS = {layer: set(cells[0]) for layer, cells in TABLE.items()}
CHECKLIST = {layer: set(cells[1]) for layer, cells in TABLE.items()}
PROBES = {layer: set(cells[2]) for layer, cells in TABLE.items()}


@pytest.fixture(scope="module")
def tags():
    """Return the tags of each playbook, as Ansible lists them."""
    known = {}

    def of(playbook):
        if playbook not in known:
            listed = subprocess.run(
                ["ansible-playbook", "-i", "inventories/production", playbook, "--list-tags"],
                cwd=PROJECT, check=True, capture_output=True, text=True,
            )  # fmt: skip
            found = re.findall(r"TAGS: \[(.*?)\]", listed.stdout)
            known[playbook] = {tag.strip() for line in found for tag in line.split(",")} - {"", "always"}
        return known[playbook]

    return of


def test_the_table_has_every_layer_and_every_role():
    assert list(TABLE) == list(LAYERS)
    # site_check observes all layers and manages none.
    assert set.union(*OWNERS.values()) == ROLES - {"site_check"}


def test_every_role_and_every_part_of_the_checklist_is_a_tag(tags):
    assert ROLES | set(checklist.LAYERS) == tags("site.yml")
    assert tags("playbooks/verify.yml") == set(checklist.LAYERS) | {"site_check"}


def test_the_checklist_judges_each_layer_where_the_table_says():
    assert set.union(*CHECKLIST.values()) == set(checklist.LAYERS) - WHOLE_PATH
    layer_of = {rule.name: rule.layer for rule in RULES}
    judged = {
        (layer_of[rule], check.layer)
        for check in checklist.CHECKS
        if check.layer not in WHOLE_PATH
        for rule in check.rules
    }
    assert judged == {(layer, part) for layer, parts in CHECKLIST.items() for part in parts}


def test_a_probe_s_name_begins_with_its_layer():
    variables = yaml.safe_load((PROJECT / "roles/site_check/vars/main.yml").read_text())
    targets = variables["__site_check_server_targets"] + variables["__site_check_edge_targets"]
    names = {target["name"].split()[0] for target in targets}
    names |= set(re.findall(r"'name': '(\w+) ", variables["__site_check_origin_targets"]))
    assert names == set.union(*PROBES.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_remedy_runs_a_role_that_owns_the_layer(rule, tags):
    for playbook, named in TAGGED.findall(rule.remedy):
        assert set(named.split(",")) <= tags(playbook), named
        assert set(named.split(",")) & OWNERS[rule.layer], f"{named} does not manage {rule.layer}"
        if rule.page in ROLES:
            assert rule.page in named.split(","), f"{named} does not run {rule.page}"


def test_remedies_with_tags_are_found():
    assert sum(len(TAGGED.findall(rule.remedy)) for rule in RULES) > 20


def test_every_tag_on_a_page_exists(tags):
    found = [(page.name, *match) for page in PAGES for match in TAGGED.findall(page.read_text())]
    assert len(found) > 10
    unknown = [one for one in found if not set(one[2].split(",")) <= tags(one[1])]
    assert not unknown


DECISIONS = PROJECT / "docs/decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_has_context_decision_and_consequences(record):
    text = record.read_text()
    assert re.match(r"# \S.*\n\n\*\*Status:\*\* \w+, \d{4}-\d\d-\d\d\.\n\n## Context\n", text)
    assert re.findall(r"(?m)^## (.*)$", text) == ["Context", "Decision", "Consequences"]
    assert all(part.strip() for part in re.split(r"(?m)^##? .*$", text)[2:])


def test_the_index_of_decisions_accounts_for_every_number():
    index = (DECISIONS / "README.md").read_text()
    rows = re.findall(r"(?m)^\| \[(\d{4})\]\((.*?)\) \| (.*?) \|", index)
    assert {file: title for _, file, title in rows} == {
        record.name: record.read_text().splitlines()[0].removeprefix("# ") for record in RECORDS
    }
    numbers = {int(number) for number, _, _ in rows}
    for first, last in re.findall(r"(?m)^\| (\d{4}) to (\d{4}) \|", index):
        numbers |= set(range(int(first), int(last) + 1))
    assert numbers == set(range(1, max(numbers) + 1))


def test_author_and_license_are_the_same_everywhere():
    copyright_line = re.search(r"(?m)^Copyright \(c\) \d{4} (.*)$", (PROJECT / "LICENSE").read_text())
    author = copyright_line[1]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert ([one["name"] for one in project["authors"]], project["license"]) == ([author], "MIT")
    collection = PROJECT / "collections/ansible_collections/screen_flow/live"
    assert (collection / "LICENSE").read_text() == (PROJECT / "LICENSE").read_text()
    assert yaml.safe_load((collection / "galaxy.yml").read_text())["authors"] == [author]
    for meta in (PROJECT / "roles").glob("*/meta/main.yml"):
        info = yaml.safe_load(meta.read_text())["galaxy_info"]
        assert (info["author"], info["license"]) == (author, "MIT"), meta
