"""The runbook: the headings of every page, a complete index, and pages that the code names."""

import re
from pathlib import Path

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES

PROJECT = Path(__file__).parents[2]
RUNBOOK = PROJECT / "docs/runbook"
INDEX = RUNBOOK / "README.md"
PAGES = sorted(set(RUNBOOK.glob("*.md")) - {INDEX})
HEADINGS = {
    "Symptoms": ["Symptoms", "Why", "Confirm", "Fix", "Verify", "Roll back"],
    "Operations": ["When to use", "What it does", "Check first", "Run", "Verify", "Roll back"],
}


def indexed():
    """Return the pages of each table of the index, by the table's heading."""
    parts = re.split(r"(?m)^## (.*)$", INDEX.read_text())[1:]
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    return {kind: re.findall(r"(?m)^\| \[[^]]+\]\(([a-z0-9_]+)\.md\) \|", tables[kind]) for kind in HEADINGS}


INDEXED = indexed()


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param


def test_a_page_has_the_headings_of_its_table_in_order_and_text_under_each(page):
    text = page.read_text()
    (headings,) = [HEADINGS[kind] for kind, pages in INDEXED.items() if page.stem in pages]
    assert re.match(rf"# \S.*\n\n## {headings[0]}\n", text)
    assert re.findall(r"(?m)^## (.*)$", text) == headings
    assert all(part.strip() for part in re.split(r"(?m)^##? .*$", text)[2:])


def test_a_page_s_commands_name_the_inventory_that_readers_and_tests_replace(page):
    for block in re.findall(r"(?ms)^```bash\n(.*?)^```$", page.read_text()):
        for command in block.replace("\\\n", " ").splitlines():
            if command.startswith("ansible"):
                assert "-i inventories/production " in command, command


def test_links_have_a_target():
    for page in (INDEX, *PAGES):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_page_once():
    assert sorted(name for pages in INDEXED.values() for name in pages) == [page.stem for page in PAGES]


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
