"""Every command of the runbook, as it stands on its page, over a healthy site with the demo's inventory."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# What changes the site comes after what only reads it: a page's "in this case" is a healthy site's. Origin
# pulls are left off by the end of their page; the next deployment turns them on again, as it says.
LATE = ("authenticated_origin_pulls", "deploy", "snapshot", "restart", "rotate", "backup", "maintenance")


def on(page):
    """Return the commands of a page of the runbook, in its order."""
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```$", (PROJECT / f"docs/runbook/{page}.md").read_text())
    return [command for block in blocks for command in block.replace("\\\n", " ").splitlines()]


def commands():
    """Return each command once, with its page: pages share many, and then the late one has it."""
    early = sorted({page.stem for page in (PROJECT / "docs/runbook").glob("*.md")} - set(LATE))
    late = {command for page in LATE for command in on(page)}
    found, seen = [], set()
    for page in (*early, *LATE):
        for command in on(page):
            if command not in seen and (page in LATE or command not in late):
                seen.add(command)
                found.append(pytest.param(command, id=f"{page}: {command[:90]}"))
    return found


def run(command):
    """Run a command as a reader would, over the demo; return the finished process."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace("inventories/production", "inventories/demo")],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )


# What changes nothing.
LOOK = re.compile(r"ansible -i|\S+ -i \S+ playbooks/(verify|diagnose|status|drift|logs|events)\.yml")


@pytest.fixture(scope="module")
def looks():
    """Run what only looks before all else, four at once: most of the commands, and mostly waiting."""
    questions = [each.values[0] for each in commands() if LOOK.match(each.values[0])]
    with ThreadPoolExecutor(4) as pool:
        yield dict(zip(questions, pool.map(run, questions), strict=True))


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_runbook_works(command, looks):
    ran = looks.get(command) or run(command)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-1000:]}"


def test_the_site_is_well_after_all_of_them():
    ran = run("ansible-playbook -i inventories/demo playbooks/verify.yml")
    assert ran.returncode == 0, ran.stdout
