"""follow: lines as they come, without secrets, and nothing left behind."""

import json
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import follow


def run(capsys, **given):
    with patch_module_args({"argv": ["true"], **given}), pytest.raises(SystemExit):
        follow.main()
    return json.loads(capsys.readouterr().out)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_lines_come_whole_filtered_and_redacted(capsys):
    script = "echo WebSocket password=hunter2; echo other; printf 'WebSocket half'; sleep 30"
    given = {"argv": ["sh", "-c", script], "match": "WebSocket"}
    job = run(capsys, phase="start", **given)["job"]
    wait_for(lambda: "half" in (Path(job) / "output").read_text())
    found = run(capsys, phase="read", job=job, **given)
    assert found["lines"] == ["WebSocket password=[redacted]"]
    assert not found["ended"]
    again = run(capsys, phase="read", job=job, offset=found["offset"], **given)
    assert again["lines"] == []
    pid = int((Path(job) / "pid").read_text())
    run(capsys, phase="stop", job=job, **given)
    assert not Path(job).exists()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


def test_a_command_ends_after_its_time(capsys):
    given = {"argv": ["sh", "-c", "echo begun; sleep 30"], "seconds": 1}
    job = run(capsys, phase="start", **given)["job"]
    wait_for(lambda: (Path(job) / "ended").exists())
    found = run(capsys, phase="read", job=job, **given)
    assert (found["lines"], found["ended"]) == (["begun"], True)
    run(capsys, phase="stop", job=job, **given)


@pytest.mark.parametrize(("name", "value"), [("seconds", 0), ("match", "(")])
def test_a_wrong_input_is_named(capsys, name, value):
    assert f"{name} is" in run(capsys, **{name: value})["msg"]
