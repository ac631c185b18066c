"""follow: lines as they come, without secrets, and no process or directory left behind."""

import time
from pathlib import Path

import pytest
from ansible_collections.screen_flow.live.plugins.modules import follow

from tests.kit.ansible_module import run_module


@pytest.fixture
def run(capsys):
    def call(**arguments):
        return run_module(follow, capsys, {"argv": ["true"], **arguments})

    return call


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def session(leader):
    """Return the command lines of the living processes in the session that `leader` leads."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if fields[3] == str(leader) and fields[0] != "Z":
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def leader(job):
    return int((Path(job) / "pid").read_text())


def test_lines_come_complete_filtered_and_redacted(run):
    script = "echo WebSocket password=hunter2; echo other; printf 'WebSocket half'; sleep 30"
    arguments = {"argv": ["sh", "-c", script], "match": "WebSocket"}
    job = run(phase="start", **arguments)["job"]
    wait_for(lambda: "half" in (Path(job) / "output").read_text())
    output = run(phase="read", job=job, **arguments)
    assert output["lines"] == ["WebSocket password=[redacted]"]
    assert not output["ended"]
    again = run(phase="read", job=job, offset=output["offset"], **arguments)
    assert again["lines"] == []
    run(phase="stop", job=job, **arguments)


def test_arguments_reach_the_command_as_they_are(run, tmp_path):
    arguments = {"argv": ["printf", "%s\\n", "$HOME", "~", "a b", ";"], "chdir": str(tmp_path)}
    job = run(phase="start", **arguments)["job"]
    wait_for(lambda: (Path(job) / "ended").exists())
    assert run(phase="read", job=job, **arguments)["lines"] == ["$HOME", "~", "a b", ";"]
    run(phase="stop", job=job, **arguments)


def test_a_stop_ends_everything_that_the_command_started(run):
    job = run(phase="start", argv=["sh", "-c", "sleep 60 & sleep 60 & wait"])["job"]
    pid = leader(job)
    wait_for(lambda: sum("sleep" in line for line in session(pid)) >= 2)
    run(phase="stop", job=job)
    wait_for(lambda: session(pid) == [])
    assert not Path(job).exists()


def test_a_stop_after_the_commands_end_leaves_no_process(run):
    job = run(phase="start")["job"]
    pid = leader(job)
    wait_for(lambda: (Path(job) / "ended").exists())
    run(phase="stop", job=job)
    wait_for(lambda: session(pid) == [])
    assert not Path(job).exists()


def test_a_stop_at_once_leaves_no_process(run):
    """The command's id is known when the start returns, whatever the script has done by then."""
    for _ in range(20):
        job = run(phase="start", argv=["sleep", "60"])["job"]
        pid = leader(job)
        run(phase="stop", job=job)
        wait_for(lambda pid=pid: session(pid) == [])
        assert not Path(job).exists()


def test_a_command_is_stopped_after_its_time_with_what_it_started(run, monkeypatch):
    monkeypatch.setattr(follow, "LINGER_SECONDS", 1)
    arguments = {"argv": ["sh", "-c", "echo begun; sleep 60 & sleep 60"], "seconds": 1}
    job = run(phase="start", **arguments)["job"]
    pid = leader(job)
    wait_for(lambda: (Path(job) / "ended").exists())
    output = run(phase="read", job=job, **arguments)
    assert (output["lines"][0], output["ended"]) == ("begun", True)
    # Nobody calls stop: the script clears up by itself.
    wait_for(lambda: session(pid) == [])
    assert not Path(job).exists()


@pytest.mark.parametrize(("name", "value"), [("seconds", 0), ("match", "("), ("chdir", "/nowhere")])
def test_invalid_input_is_named(run, name, value):
    assert f"{name} is" in run(**{name: value})["msg"]
