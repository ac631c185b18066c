"""config_tree: what changes, when nothing may change, and what check mode reports."""

import os
import socket

import pytest
from ansible_collections.screen_flow.live.plugins.modules import config_tree

from tests.kit.ansible_module import run_module


@pytest.fixture
def run(tmp_path, capsys):
    """Run the module over tmp_path/etc and return its result."""

    def call(check=False, **arguments):
        arguments = {"root": str(tmp_path / "etc"), "owner": os.geteuid(), **arguments}
        return run_module(config_tree, capsys, arguments, check)

    return call


@pytest.fixture
def root(tmp_path):
    return tmp_path / "etc"


FILES = [
    {"path": "main.conf", "content": "one\n"},
    {"path": "sub/part.conf", "content": "two\n", "mode": "0600"},
]


def test_files_are_written_with_their_modes(run, root):
    assert run(files=FILES)["paths"] == ["main.conf", "sub/part.conf"]
    assert (root / "main.conf").read_text() == "one\n"
    assert (root / "sub/part.conf").stat().st_mode & 0o777 == 0o600


def test_a_second_run_changes_nothing(run, root):
    arguments = {"files": FILES, "links": [{"path": "on/main", "target": "../main.conf"}], "absent": ["old"]}
    assert run(**arguments)["changed"]
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    assert not run(**arguments)["changed"]
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_wrong_mode_is_corrected(run, root):
    run(files=FILES)
    (root / "main.conf").chmod(0o666)
    assert run(files=FILES)["paths"] == ["main.conf"]
    assert (root / "main.conf").stat().st_mode & 0o777 == 0o644


def test_links_are_created_corrected_and_removed(run, root):
    run(files=FILES, links=[{"path": "on/main", "target": "../sub/part.conf"}])
    (root / "on/default").symlink_to("../main.conf")
    run(files=FILES, links=[{"path": "on/main", "target": "../main.conf"}], absent=["on/default"])
    assert (root / "on/main").read_text() == "one\n"
    assert sorted(path.name for path in (root / "on").iterdir()) == ["main"]


def test_a_file_written_once_keeps_its_content(run, root):
    run(files=[{"path": "key", "content": "first", "mode": "0400", "once": True}])
    assert not run(files=[{"path": "key", "content": "second", "mode": "0400", "once": True}])["changed"]
    assert (root / "key").read_text() == "first"


def test_check_mode_shows_the_difference_and_writes_nothing(run, root):
    result = run(check=True, files=FILES, validate="no-such-program %s")
    assert result["changed"]
    assert [(item["before"], item["after"]) for item in result["diff"]] == [("", "one\n"), ("", "two\n")]
    assert not root.exists()


def test_the_check_sees_the_whole_new_tree(run, root):
    root.mkdir()
    (root / "other.conf").write_text("theirs\n")
    run(files=FILES, validate="grep -q theirs %s/other.conf")
    assert (root / "main.conf").exists()
    assert not run(files=FILES, validate="false")["changed"], "an unchanged tree is not checked"


def test_a_failed_check_leaves_the_tree_and_reports_its_real_paths(run, root):
    run(files=FILES)
    result = run(
        files=[{"path": "main.conf", "content": "broken\n"}], validate="ls %s/main.conf %s/missing.conf"
    )
    assert result["failed"]
    assert f"{root}/missing.conf" in result["msg"]
    assert (root / "main.conf").read_text() == "one\n"
    assert [path.name for path in root.parent.iterdir()] == ["etc"], "the staged copy is removed"


def test_special_files_are_left_alone(run, root):
    run(files=FILES)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "sub/api.sock"))
    os.mkfifo(root / "pipe")
    assert run(files=[{"path": "main.conf", "content": "new\n"}], validate="test -e %s/sub/part.conf")[
        "changed"
    ]
    assert (root / "sub/api.sock").is_socket()


def test_a_failed_check_fails_check_mode_too(run, root):
    assert run(check=True, files=FILES, validate="false")["failed"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_path_outside_the_directory_is_refused(run, path):
    result = run(files=[{"path": path, "content": ""}])
    assert result["failed"]
    assert path in result["msg"]


@pytest.mark.parametrize(
    "arguments", [{"mode": "rwx"}, {"files": [{"path": "a", "content": "", "mode": "9"}]}]
)
def test_an_invalid_mode_is_named(run, arguments):
    result = run(**arguments)
    assert result["failed"]
    assert "use octal digits" in result["msg"]


def test_what_a_killed_run_left_is_removed_after_an_hour(run, root):
    run(files=FILES)
    old = [root.parent / ".config_tree-a", root / ".config_tree-b", root / "sub/.config_tree-c"]
    for directory in [*old, root / ".config_tree-young"]:
        directory.mkdir()
        (directory / "copy").write_text("secret")
    for directory in old:
        os.utime(directory, (0, 0))
    assert not run(files=FILES, check=True)["changed"]
    assert all(directory.exists() for directory in old)
    assert not run(files=FILES)["changed"]
    assert sorted(root.parent.rglob(".config_tree-*")) == [root / ".config_tree-young"]
