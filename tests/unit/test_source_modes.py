"""The images' files have fixed modes, whatever umask the checkout was made under."""

import shutil
import subprocess
import sys

import yaml

from tests.kit.ansible_files import PROJECT, files, items

TASKS = ("build | Pack the source", "build | Unpack the source on the server")


def test_a_checkout_under_umask_077_can_be_read_in_the_image(tmp_path):
    source = tmp_path / "app"
    shutil.copytree(PROJECT / "app/redis", source / "redis")
    for path in (source, *source.rglob("*")):
        path.chmod(0o700 if path.is_dir() or path.suffix == ".sh" else 0o600)
    (tmp_path / "server").mkdir()
    (build,) = files("roles/app_stack/tasks/build.yml")
    tasks = [task.item for task in items(build) if task.item.get("name") in TASKS]
    assert len(tasks) == len(TASKS)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": sorted(tasks, key=lambda task: TASKS.index(task["name"])),
        "vars": {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "app_stack_source": [str(source)],
            "__app_stack_source_exclude": ["__pycache__"],
            "__app_stack_archive": str(tmp_path / "source.tar.gz"),
            "__app_stack_server_dir": {"path": str(tmp_path / "server")},
        },
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(playbook)],
        check=True,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
    )
    unpacked = list((tmp_path / "server/app").rglob("*"))
    assert unpacked
    for path in unpacked:
        assert path.stat().st_mode & 0o004, f"{path} has mode {path.stat().st_mode:o}"
