"""Every command of the runbook as its page has it, over a healthy site and with the demo's inventory."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# Pages that change the site, after those that only read it: theirs are the commands of a healthy site. Origin
# pulls are off at the end of their page; the next deployment turns them on again, as the page describes.
LATE = ("authenticated_origin_pulls", "deploy", "snapshot", "restart", "rotate", "backup", "maintenance")


def commands_of(page):
    """Return the commands of a page of the runbook, in order."""
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```$", (PROJECT / f"docs/runbook/{page}.md").read_text())
    return [command for block in blocks for command in block.replace("\\\n", " ").splitlines()]


def commands():
    """Return each command once, with its page: of several pages, the one that changes the site."""
    early = sorted({page.stem for page in (PROJECT / "docs/runbook").glob("*.md")} - set(LATE))
    late = {command for page in LATE for command in commands_of(page)}
    found, seen = [], set()
    for page in (*early, *LATE):
        for command in commands_of(page):
            if command not in seen and (page in LATE or command not in late):
                seen.add(command)
                found.append(pytest.param(command, id=f"{page}: {command[:90]}"))
    return found


def run(command):
    """Run a command on the demo as a reader would; return the finished process."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace("inventories/production", "inventories/demo")],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )


# Commands that change nothing.
READ_ONLY = re.compile(
    r"ansible -i|\S+ -i \S+ playbooks/(verify|diagnose|status|drift|logs|events|remove_user)\.yml"
)


@pytest.fixture(scope="module")
def read_only():
    """Run the commands that change nothing before all others, four at once, since they mostly wait."""
    chosen = [each.values[0] for each in commands() if READ_ONLY.match(each.values[0])]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(chosen, pool.map(run, chosen), strict=True))


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_runbook_succeeds(command, read_only):
    done = read_only.get(command) or run(command)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}"


def test_the_site_is_healthy_after_all_of_them():
    done = run("ansible-playbook -i inventories/demo playbooks/verify.yml")
    assert done.returncode == 0, done.stdout
