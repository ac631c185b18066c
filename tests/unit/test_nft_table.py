"""nft_table: what it compares, what waits to be confirmed, what is kept. Molecule has a real kernel."""

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import nft_table

OLD, NEW = "table inet wall {\n\told\n}\n", "table inet wall {\n\tnew\n}\n"
HEAD = "table inet wall\ndelete table inet wall\n"
# A kernel with one table, which is a file; `bad` is what it refuses.
NFT = """#!/bin/sh
case "$*" in
  "list tables") test ! -e "$KERNEL" || echo "table inet wall" ;;
  "--stateless list table inet wall") cat "$KERNEL" ;;
  "-f "*) if grep -q bad "$2"; then echo "$2:3: syntax error" >&2; exit 1; fi; tail -n +3 "$2" >"$KERNEL" ;;
  *) exit 99 ;;
esac
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Put programs on the path that write down how they were called."""
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
def run(place, capsys):
    """Run the module; return what it says."""

    def call(state="loaded", check=False, **arguments):
        arguments = {"table": "inet wall", "state": state, "path": f"{place}/wall.nft", **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            nft_table.main()
        return json.loads(capsys.readouterr().out)

    return call


def calls(place):
    return (place / "kernel.calls").read_text()


def test_new_rules_are_in_force_and_wait(run, place):
    (place / "kernel").write_text(OLD)
    said = run(content=HEAD + NEW, rollback_after=45)
    assert (said["changed"], said["unconfirmed"]) == (True, True)
    assert (place / "kernel").read_text() == NEW
    assert not (place / "wall.nft").exists()
    assert "--on-active=45" in calls(place)
    # What the timer would load.
    assert (place / "wall.old.nft").read_text() == HEAD + OLD


def test_the_timer_is_set_before_the_rules_are_loaded(run, place):
    (place / "bin/systemd-run").write_text("#!/bin/sh\nexit 1\n")
    assert run(content=HEAD + NEW)["failed"]
    assert not (place / "kernel").exists()


def test_kept_rules_are_those_of_the_boot(run, place):
    run(content=HEAD + NEW)
    said = run("kept")
    assert (said["changed"], said["unconfirmed"]) == (True, False)
    assert (place / "wall.nft").read_text() == HEAD + NEW
    assert calls(place).endswith("stop wall-rollback.timer\n")
    assert not list(place.glob("*.old.nft"))
    said = run(content=HEAD + NEW)
    assert (said["changed"], said["unconfirmed"]) == (False, False)


def test_rules_that_were_taken_back_can_t_be_kept(run, place):
    run(content=HEAD + NEW)
    (place / "wall.new.nft").unlink()  # as the timer does
    said = run("kept")
    assert said["failed"]
    assert "taken back" in said["msg"]
    assert not (place / "wall.nft").exists()


def test_an_interrupted_run_is_confirmed_by_the_next(run):
    run(content=HEAD + NEW)
    assert run(content=HEAD + NEW)["unconfirmed"]


def test_a_rule_that_was_changed_by_hand_is_found(run, place):
    run(content=HEAD + NEW)
    run("kept")
    (place / "kernel").write_text(OLD)
    said = run(content=HEAD + NEW, check=True)
    assert (said["changed"], said["diff"][0]["before"], said["diff"][0]["after"]) == (True, OLD, NEW)
    assert (place / "kernel").read_text() == OLD


def test_rules_that_nft_refuses_change_nothing(run, place):
    (place / "kernel").write_text(OLD)
    said = run(content=HEAD + "bad\n")
    assert said["failed"]
    assert f"{place}/wall.nft:3: syntax error" in said["msg"]
    assert (place / "kernel").read_text() == OLD


def test_a_dry_run_changes_nothing(run, place):
    said = run(content=HEAD + NEW, check=True)
    assert (said["changed"], said["unconfirmed"]) == (True, False)
    assert not (place / "kernel").exists()
    assert not list(place.glob("*.nft"))


def test_a_dry_run_of_a_bare_host_takes_the_rules_unchecked(run, place):
    (place / "bin/nft").unlink()
    assert run(content=HEAD + NEW, check=True)["changed"]


@pytest.mark.parametrize(
    ("name", "value"), [("table", "inet a; b"), ("table", "wall"), ("rollback_after", 0)]
)
def test_bad_input_is_named(run, name, value):
    said = run(content=HEAD + NEW, **{name: value})
    assert said["failed"]
    assert f"{name} is" in said["msg"]
    assert str(value) in said["msg"]
