"""nft_table: what is compared, what is pending, what is kept. The molecule scenario has a real kernel."""

import os

import pytest
from ansible_collections.screen_flow.live.plugins.modules import nft_table

from tests.kit.ansible_module import run_module

OLD, NEW = "table inet wall {\n\told\n}\n", "table inet wall {\n\tnew\n}\n"
HEAD = "table inet wall\ndelete table inet wall\n"
# A kernel with one table, which is a file; it rejects `bad`.
NFT = """#!/bin/sh
case "$*" in
  "list tables") test ! -e "$KERNEL" || echo "table inet wall" ;;
  "--stateless list table inet wall") cat "$KERNEL" ;;
  "-f "*) if grep -q bad "$2"; then echo "$2:3: syntax error" >&2; exit 1; fi; tail -n +3 "$2" >"$KERNEL" ;;
  *) exit 99 ;;
esac
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Put programs on the path that record their calls."""
    programs = {
        "nft": NFT,
        "unshare": '#!/bin/sh\nshift; KERNEL="$KERNEL.namespace" exec "$@"\n',
        "systemd-run": '#!/bin/sh\necho "run $*" >>"$KERNEL.calls"\n',
        "systemctl": '#!/bin/sh\necho "$*" >>"$KERNEL.calls"\n',
    }
    for name, text in programs.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("KERNEL", f"{tmp_path}/kernel")
    monkeypatch.setattr(nft_table, "PENDING", tmp_path)
    return tmp_path


@pytest.fixture
def run(host, capsys):
    """Run the module and return its result."""

    def call(state="loaded", check=False, **arguments):
        arguments = {"table": "inet wall", "state": state, "path": f"{host}/wall.nft", **arguments}
        return run_module(nft_table, capsys, arguments, check)

    return call


def calls(host):
    return (host / "kernel.calls").read_text()


def test_new_rules_are_loaded_and_pending(run, host):
    (host / "kernel").write_text(OLD)
    result = run(content=HEAD + NEW, rollback_after=45)
    assert (result["changed"], result["unconfirmed"]) == (True, True)
    assert (host / "kernel").read_text() == NEW
    assert not (host / "wall.nft").exists()
    assert "--on-active=45" in calls(host)
    # The timer would load this.
    assert (host / "wall.old.nft").read_text() == HEAD + OLD


def test_the_timer_starts_before_the_rules_are_loaded(run, host):
    (host / "bin/systemd-run").write_text("#!/bin/sh\nexit 1\n")
    assert run(content=HEAD + NEW)["failed"]
    assert not (host / "kernel").exists()


def test_kept_rules_are_loaded_at_boot(run, host):
    run(content=HEAD + NEW)
    result = run("kept")
    assert (result["changed"], result["unconfirmed"]) == (True, False)
    assert (host / "wall.nft").read_text() == HEAD + NEW
    assert calls(host).endswith("stop wall-rollback.timer\n")
    assert not list(host.glob("*.old.nft"))
    result = run(content=HEAD + NEW)
    assert (result["changed"], result["unconfirmed"]) == (False, False)


def test_rules_that_were_rolled_back_cannot_be_kept(run, host):
    run(content=HEAD + NEW)
    (host / "wall.new.nft").unlink()  # as the timer does
    result = run("kept")
    assert result["failed"]
    assert "rolled back" in result["msg"]
    assert not (host / "wall.nft").exists()


def test_the_next_run_reports_pending_rules(run):
    run(content=HEAD + NEW)
    assert run(content=HEAD + NEW)["unconfirmed"]


def test_a_rule_changed_by_hand_is_a_difference(run, host):
    run(content=HEAD + NEW)
    run("kept")
    (host / "kernel").write_text(OLD)
    result = run(content=HEAD + NEW, check=True)
    assert (result["changed"], result["diff"][0]["before"], result["diff"][0]["after"]) == (True, OLD, NEW)
    assert (host / "kernel").read_text() == OLD


def test_rules_that_nft_rejects_change_nothing(run, host):
    (host / "kernel").write_text(OLD)
    result = run(content=HEAD + "bad\n")
    assert result["failed"]
    assert f"{host}/wall.nft:3: syntax error" in result["msg"]
    assert (host / "kernel").read_text() == OLD


def test_check_mode_changes_nothing(run, host):
    result = run(content=HEAD + NEW, check=True)
    assert (result["changed"], result["unconfirmed"]) == (True, False)
    assert not (host / "kernel").exists()
    assert not list(host.glob("*.nft"))


def test_check_mode_on_a_bare_host_does_not_validate_the_rules(run, host):
    (host / "bin/nft").unlink()
    assert run(content=HEAD + NEW, check=True)["changed"]


@pytest.mark.parametrize(
    ("name", "value"), [("table", "inet a; b"), ("table", "wall"), ("rollback_after", 0)]
)
def test_invalid_input_is_named(run, name, value):
    result = run(content=HEAD + NEW, **{name: value})
    assert result["failed"]
    assert f"{name} is" in result["msg"]
    assert str(value) in result["msg"]
