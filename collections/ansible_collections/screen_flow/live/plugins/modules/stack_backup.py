#!/usr/bin/python
"""Ansible module: save Redis's data and the uploads of the compose project to one file, and restore them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_backup
short_description: Save Redis's data and the uploads to one file, or restore them
description:
  - O(state=saved) copies both while the project runs. The archive has the upload of every job that its copy
    of Redis contains, because the uploads are copied before and again after Redis's data.
  - Redis's data are its append-only files, as its manifest lists them. They are copied again if Redis
    changes the manifest meanwhile. No command is sent to Redis, so it may be down.
  - O(state=restored) validates the whole archive first. Then it writes the new data in the same file
    systems, swaps them with the old, and removes the old.
options:
  archive:
    description: The archive on the host, a C(tar.gz) file. Its directory must exist.
    type: path
    required: true
  redis_dir:
    description: Redis's data directory on the host, usually the mount point of its volume.
    type: path
    required: true
  uploads_dir:
    description: Directory of the uploads on the host.
    type: path
    required: true
  state:
    description: V(saved) writes O(archive), V(restored) replaces the data with it.
    type: str
    choices: [saved, restored]
    required: true
requirements:
  - Python 3.11 or later on the host
  - Redis 7.0 or later with C(appendonly yes), whose append-only files have a manifest
notes:
  - For O(state=restored), Redis and all services that use the uploads must be stopped.
  - An interrupted O(state=saved) leaves no archive; an interrupted O(state=restored) is completed by
    another run.
  - The archive holds personal data, so only its owner can read it. It must not be modified; every file in
    it is verified by its SHA-256.
seealso:
  - module: community.docker.docker_compose_v2
  - module: ansible.builtin.fetch
extends_documentation_fragment: [screen_flow.live.attributes.read_only]
attributes:
  check_mode:
    support: full
    details: O(state=restored) validates the archive and changes nothing.
  idempotent:
    support: none
    details: Each save is the data of another moment; each restore replaces the current data.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Save Redis and the uploads
  screen_flow.live.stack_backup:
    archive: /var/backups/screen-flow.tar.gz
    redis_dir: &redis /var/lib/docker/volumes/screen-flow_redis/_data
    uploads_dir: &uploads /var/lib/docker/volumes/screen-flow_uploads/_data
    state: saved

- name: Stop the project
  community.docker.docker_compose_v2:
    project_src: /opt/screen-flow
    state: stopped

- name: Restore them
  screen_flow.live.stack_backup:
    archive: /var/backups/screen-flow.tar.gz
    redis_dir: *redis
    uploads_dir: *uploads
    state: restored
"""

RETURN = r"""
time:
  description: When the data were saved, in UTC, as in ISO 8601. Empty for a save in check mode.
  type: str
  returned: success
  sample: "2026-11-24T19:00:00+00:00"
files:
  description: Number of files in the archive, without its own list.
  type: int
  returned: success
  sample: 42
bytes:
  description: Total size of these files.
  type: int
  returned: success
  sample: 18350080
"""

import datetime
import hashlib
import json
import os
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.module_utils.basic import AnsibleModule

LIST = "backup.json"
FORMAT = 1
AOF = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"
ATTEMPTS = 5  # a rewrite of the append-only files lasts seconds at most
NEW = ".restoring"
OLD = ".replaced"


class BackupError(Exception):
    """The backup failed; the text is the sentence for the user."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_uploads(source: Path, target: Path) -> None:
    """Copy the files that the target lacks. One that disappears during the copy belongs to a finished job."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not file.is_symlink() and not (target / file.name).exists():
            try:
                shutil.copy2(file, target / file.name)
            except FileNotFoundError:
                (target / file.name).unlink(missing_ok=True)


def copy_redis(source: Path, target: Path) -> None:
    """Copy a consistent set of append-only files; raises BackupError."""
    folder = source / AOF
    for _ in range(ATTEMPTS):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            manifest = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise BackupError(
                f"{folder / MANIFEST} does not exist: Redis has not run yet, or redis_dir is not its data "
                "directory."
            ) from None
        try:
            # file NAME seq NUMBER type b|i|h; the newest comes last, so the copy ends with the newest change.
            for line in manifest.decode().splitlines():
                name = shlex.split(line)[1]
                shutil.copy2(folder / name, target / name)
            if (folder / MANIFEST).read_bytes() == manifest:
                (target / MANIFEST).write_bytes(manifest)
                return
        except FileNotFoundError:
            continue  # Redis has replaced it in the meantime
    raise BackupError(f"Redis rewrote its files during each of {ATTEMPTS} copies; run again in a minute.")


def save(archive: Path, redis_dir: Path, uploads_dir: Path) -> dict[str, Any]:
    """Write the archive atomically and return its list; raises BackupError or OSError."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".backup-") as name:
        folder = Path(name)
        copy_uploads(uploads_dir, folder / "uploads")
        copy_redis(redis_dir, folder / "redis")
        copy_uploads(uploads_dir, folder / "uploads")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        listed = {
            "format": FORMAT,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "bytes": sum(file.stat().st_size for file in files),
            "files": {str(file.relative_to(folder)): digest(file) for file in files},
        }
        (folder / LIST).write_text(json.dumps(listed, indent=2) + "\n")
        packed = folder / "packed"
        with tarfile.open(packed, "w:gz", compresslevel=3) as tar:
            for file in (folder / LIST, *files):
                tar.add(file, file.relative_to(folder))
        packed.chmod(0o600)
        packed.replace(archive)
    return listed


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack the archive, verify each file by its list, and return the list; raises BackupError."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # Only files, and none outside the folder: also for a Python without extraction filters.
            for member in tar.getmembers():
                if not member.isfile() or ".." in PurePosixPath(member.name).parts or member.name[0] == "/":
                    raise BackupError(
                        f"{archive} contains {member.name}, so it is not a backup; use a file that "
                        "backup.yml wrote."
                    )
                member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "", ""
                tar.extract(member, folder)
        listed: dict[str, Any] = json.loads((folder / LIST).read_text())
        if listed["format"] != FORMAT:
            raise BackupError(
                f"{archive} has format {listed['format']}, this release reads format {FORMAT}; restore it "
                "with the release that wrote it."
            )
        found = {
            str(file.relative_to(folder)): digest(file)
            for file in folder.rglob("*")
            if file.is_file() and file != folder / LIST
        }
    except FileNotFoundError as error:
        raise BackupError(f"{error.filename} does not exist; use a file that backup.yml wrote.") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise BackupError(f"{archive} can't be read as a backup ({error}); use another.") from error
    if found != listed["files"]:
        wrong = sorted(name for name, _ in set(found.items()) ^ set(listed["files"].items()))
        raise BackupError(f"{archive} is damaged: {wrong[0]} differs from what was saved; use another.")
    return listed


def copy_for(owner: os.stat_result, source: Path, target: Path) -> None:
    """Replace `target` by a copy of a folder that belongs to `owner`."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    if source.is_dir():  # an archive without uploads has no such folder
        for file in source.iterdir():
            # Without its time: the worker removes uploads that are older than a day.
            shutil.copy(file, target / file.name)
    for path in (target, *target.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)


def restore(archive: Path, redis_dir: Path, uploads_dir: Path, check: bool) -> dict[str, Any]:
    """Replace the data by the archive's and return its list; raises BackupError or OSError."""
    with tempfile.TemporaryDirectory(dir=redis_dir, prefix=".backup-") as name:
        listed = unpack(archive, Path(name))
        if check:
            return listed
        owner = redis_dir.stat()
        # Written before the old data are touched: a full disk must fail here.
        copy_for(owner, Path(name) / "redis", redis_dir / f"{AOF}{NEW}")
        copy_for(owner, Path(name) / "uploads", uploads_dir / NEW)
    old = redis_dir / f"{AOF}{OLD}"
    shutil.rmtree(old, ignore_errors=True)
    if (redis_dir / AOF).exists():
        (redis_dir / AOF).rename(old)
    (redis_dir / f"{AOF}{NEW}").rename(redis_dir / AOF)
    for file in [file for file in uploads_dir.iterdir() if file.is_file()]:
        file.unlink()
    for file in (uploads_dir / NEW).iterdir():
        file.rename(uploads_dir / file.name)
    (uploads_dir / NEW).rmdir()
    shutil.rmtree(old, ignore_errors=True)
    return listed


def main() -> None:
    """Entry point: save or restore."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "redis_dir": {"type": "path", "required": True},
            "uploads_dir": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["saved", "restored"], "required": True},
        },
        supports_check_mode=True,
    )
    inputs, check = module.params, module.check_mode
    paths = Path(inputs["archive"]), Path(inputs["redis_dir"]), Path(inputs["uploads_dir"])
    for name, path in zip(("archive", "redis_dir", "uploads_dir"), paths, strict=True):
        folder = path.parent if name == "archive" else path
        if not folder.is_dir():
            module.fail_json(
                msg=f"{name} is '{path}', but the directory {folder} does not exist: use one that does."
            )
    done: dict[str, Any] = {"time": "", "files": {}, "bytes": 0}
    try:
        if inputs["state"] == "restored":
            done = restore(*paths, check)
        elif not check:
            done = save(*paths)
    except BackupError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}. Correct that and run again.")
    done.pop("format", None)
    module.exit_json(changed=True, **(done | {"files": len(done["files"])}))


if __name__ == "__main__":
    main()
