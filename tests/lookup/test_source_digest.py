"""source_digest: it depends on the content of the source and on nothing else."""

import os

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible_collections.screen_flow.live.plugins.lookup.source_digest import digest


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "app"
    (folder / "api").mkdir(parents=True)
    (folder / "api/main.py").write_text("print()\n")
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


def test_the_digest_has_twelve_hexadecimal_digits(source):
    assert len(digest([source], set())) == 12
    int(digest([source], set()), 16)


def test_times_and_parent_folders_do_not_matter(source, tmp_path):
    before = digest([source], set())
    os.utime(source / "Dockerfile", (0, 0))
    moved = tmp_path / "elsewhere/app"
    moved.parent.mkdir()
    source.rename(moved)
    assert digest([moved], set()) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "api/main.py").write_text("print(1)\n"),
        lambda source: (source / "api/main.py").rename(source / "api/other.py"),
        lambda source: (source / "api/main.py").chmod(0o755),
        lambda source: (source / "new").touch(),
    ],
    ids=["content", "name", "executable bit", "new file"],
)
def test_every_change_gives_another_digest(source, change):
    before = digest([source], set())
    change(source)
    assert digest([source], set()) != before


def test_excluded_names_do_not_matter(source):
    before = digest([source], {"node_modules"})
    (source / "node_modules").mkdir()
    (source / "node_modules/x.js").touch()
    assert digest([source], {"node_modules"}) == before


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(AnsibleLookupError, match=str(tmp_path / "nowhere")):
        lookup_loader.get("screen_flow.live.source_digest").run([str(tmp_path / "nowhere")])
