#!/usr/bin/python
"""Ansible module: save what the compose project knows (Redis and uploads) to one file, and put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_backup
short_description: Save Redis' data and the uploads to one file, or put them back
description:
  - V(saved) copies both while the project runs. Every job that the copy of Redis knows has its upload in the
    file, because uploads are looked through before and after Redis' data are copied.
  - Redis' data are its append-only files, as its manifest lists them; they are copied again when Redis
    changed that list meanwhile. Redis is not asked for anything, so this works while it is down, too.
  - V(restored) checks the whole file first. Then it puts the new data beside the old, swaps them, and
    removes the old. Redis, api and worker must be stopped.
  - Stopped halfway, V(saved) leaves no file, and V(restored) is done by running it again.
options:
  archive:
    description: The file on the server, a tar.gz. Its folder must exist.
    type: path
    required: true
  redis_dir:
    description: Redis' data folder on the server; the mount point of its volume.
    type: path
    required: true
  uploads_dir:
    description: The folder of the uploads on the server.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [saved, restored]
    required: true
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
attributes:
  check_mode:
    support: full
    details: V(restored) checks the file and changes nothing.
  idempotent:
    support: none
    details: Each save is another moment's data; each restore replaces what is there.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Save Redis and the uploads
  screen_flow.live.stack_backup:
    archive: /var/backups/screen-flow.tar.gz
    redis_dir: /var/lib/docker/volumes/screen-flow_redis/_data
    uploads_dir: /var/lib/docker/volumes/screen-flow_uploads/_data
    state: saved
"""

RETURN = r"""
time:
  description: When the data were saved, ISO 8601 in UTC.
  type: str
  returned: always
files:
  description: Number of files in the archive, without its own list.
  type: int
  returned: always
bytes:
  description: Size of these files together.
  type: int
  returned: always
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
TRIES = 5  # a rewrite of the append-only files takes seconds at most while they are copied
NEW = ".restoring"
OLD = ".replaced"


class BackupError(Exception):
    """It can't be done; the text is the sentence for the user."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_uploads(source: Path, target: Path) -> None:
    """Copy the files that are not there yet. One that goes away meanwhile was processed: its job is done."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not file.is_symlink() and not (target / file.name).exists():
            try:
                shutil.copy2(file, target / file.name)
            except FileNotFoundError:
                (target / file.name).unlink(missing_ok=True)


def copy_redis(source: Path, target: Path) -> None:
    """Copy the append-only files that belong together; raises BackupError."""
    folder = source / AOF
    for _ in range(TRIES):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            manifest = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise BackupError(
                f"{folder / MANIFEST} is not there: Redis has not run yet, or redis_dir is another folder."
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
            continue  # Redis replaced it meanwhile
    raise BackupError(f"Redis rewrote its files {TRIES} times while they were copied; try again in a minute.")


def save(archive: Path, redis_dir: Path, uploads_dir: Path) -> dict[str, Any]:
    """Write the archive in one step and return its list; raises BackupError or OSError."""
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
    """Unpack the archive, compare each file with its list, and return that; raises BackupError."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # Nothing but files, and none outside of the folder: also where Python has no filters yet.
            for member in tar.getmembers():
                if not member.isfile() or ".." in PurePosixPath(member.name).parts or member.name[0] == "/":
                    raise BackupError(f"{archive} holds {member.name}, which no backup of ours does.")
                member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "", ""
                tar.extract(member, folder)
        listed: dict[str, Any] = json.loads((folder / LIST).read_text())
        if listed["format"] != FORMAT:
            raise BackupError(f"{archive} has format {listed['format']}; this release reads {FORMAT}.")
        found = {
            str(file.relative_to(folder)): digest(file)
            for file in folder.rglob("*")
            if file.is_file() and file != folder / LIST
        }
    except FileNotFoundError as error:
        raise BackupError(f"{error.filename} is not there; give a file that backup.yml wrote.") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise BackupError(f"{archive} can't be read as a backup ({error}); give another.") from error
    if found != listed["files"]:
        wrong = sorted(name for name, _ in set(found.items()) ^ set(listed["files"].items()))
        raise BackupError(f"{archive} is damaged, {wrong[0]} is not what was saved; give another.")
    return listed


def put(source: Path, target: Path, owner: os.stat_result) -> None:
    """Copy a folder to `target`, for the owner of the data that were there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    if source.is_dir():  # an archive without uploads has no such folder
        for file in source.iterdir():
            # Not its time: the worker removes uploads that are older than a day.
            shutil.copy(file, target / file.name)
    for path in (target, *target.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)


def restore(archive: Path, redis_dir: Path, uploads_dir: Path, check: bool) -> dict[str, Any]:
    """Put the archive's data in place of what is there; return its list. Raises BackupError or OSError."""
    with tempfile.TemporaryDirectory(dir=redis_dir, prefix=".backup-") as name:
        listed = unpack(archive, Path(name))
        if check:
            return listed
        owner = redis_dir.stat()
        # Beside the old ones first: a full disk must show before anything is replaced.
        put(Path(name) / "redis", redis_dir / f"{AOF}{NEW}", owner)
        put(Path(name) / "uploads", uploads_dir / NEW, owner)
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
    places = Path(inputs["archive"]), Path(inputs["redis_dir"]), Path(inputs["uploads_dir"])
    for name, place in zip(("archive", "redis_dir", "uploads_dir"), places, strict=True):
        folder = place.parent if name == "archive" else place
        if not folder.is_dir():
            module.fail_json(msg=f"{name} is '{place}', but {folder} is no folder; give one that is there.")
    done: dict[str, Any] = {"time": "", "files": {}, "bytes": 0}
    try:
        if inputs["state"] == "restored":
            done = restore(*places, check)
        elif not check:
            done = save(*places)
    except BackupError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}. Mend that, and run it again.")
    done.pop("format", None)
    module.exit_json(changed=True, **(done | {"files": len(done["files"])}))


if __name__ == "__main__":
    main()
