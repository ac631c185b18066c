"""The runbook: one form for every page, an index without gaps, no page named in the code that is missing."""

import re
from pathlib import Path

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES

PROJECT = Path(__file__).parents[2]
RUNBOOK = PROJECT / "docs/runbook"
INDEX = RUNBOOK / "README.md"
PAGES = sorted(set(RUNBOOK.glob("*.md")) - {INDEX})
HEADINGS = ["What you see", "Why", "Be sure", "Do", "Verify", "Go back"]


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param


def test_a_page_has_the_headings_in_order_and_says_something_under_each(page):
    text = page.read_text()
    assert re.match(r"# \S.*\n\n## What you see\n", text)
    assert re.findall(r"(?m)^## (.*)$", text) == HEADINGS
    assert all(part.strip() for part in re.split(r"(?m)^##? .*$", text)[2:])


def test_a_page_s_commands_name_the_inventory_that_readers_and_tests_replace(page):
    for block in re.findall(r"(?ms)^```bash\n(.*?)^```$", page.read_text()):
        for command in block.replace("\\\n", " ").splitlines():
            if command.startswith("ansible"):
                assert "-i inventories/production " in command, command


def test_links_lead_somewhere():
    for page in (INDEX, *PAGES):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_page_once():
    listed = re.findall(r"(?m)^\| \[[^]]+\]\(([a-z0-9_]+)\.md\) \|", INDEX.read_text())
    assert sorted(listed) == [page.stem for page in PAGES]


def test_pages_named_in_the_code_exist():
    sources = [
        path
        for folder in ("playbooks", "collections", "roles")
        for path in (PROJECT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yml", ".j2")
    ]
    named = {
        name for path in sources for name in re.findall(r"docs/runbook/([a-z0-9_]+)\.md", path.read_text())
    } | {rule.page for rule in RULES}
    assert named <= {page.stem for page in PAGES}, named - {page.stem for page in PAGES}
