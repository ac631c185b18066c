"""scripts/progress: shows that a command without output still runs."""

import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_through(command):
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | {SCRIPTS}/progress Waiting"],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_a_silent_command_gets_a_line_every_five_seconds():
    assert run_through("{ echo one; sleep 6; echo two; }").stdout == "one\n    Waiting: 5 s\ntwo\n"


def test_lines_and_exit_code_pass_unchanged():
    done = run_through("{ printf '  a\\\\b\\n\\nno end'; exit 3; }")
    assert (done.stdout, done.returncode) == ("  a\\b\n\nno end", 3)
