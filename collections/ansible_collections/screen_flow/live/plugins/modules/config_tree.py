#!/usr/bin/python
"""Ansible module: put a set of configuration files in place as one, once the whole set passed a check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Put a set of configuration files in place as one
description:
  - Writes files and symbolic links under one folder. What differs is first written into a staged copy of the
    folder, and O(validate) is run over that copy; only when it passes does anything in the folder change.
  - A failed check leaves the folder as it was, so the service that reads it keeps running.
  - One run of this module replaces a template task for each file, which costs a connection each.
options:
  root:
    description: The folder, absolute.
    type: path
    required: true
  mode:
    description: Mode of O(root) and of folders made under it.
    type: str
    default: "0755"
  owner:
    description: Number of the user who owns what is written.
    type: int
    default: 0
  files:
    description: The files, with their whole content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path below O(root).
        type: str
        required: true
      content:
        description: The content as text.
        type: str
        required: true
      mode:
        description: Permissions as an octal string.
        type: str
        default: "0644"
      once:
        description: Write the file only where there is none; one that is there keeps its content.
        type: bool
        default: false
  links:
    description: The symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path below O(root).
        type: str
        required: true
      target:
        description: What the link says, relative to its own folder or absolute.
        type: str
        required: true
  absent:
    description: Paths below O(root) of files and links that must not be there.
    type: list
    elements: str
    default: []
  validate:
    description:
      - The command that checks a staged copy; V(%s) stands for the copy's folder. Not run through a shell.
      - In check mode it is skipped when the program is not installed yet.
    type: str
extends_documentation_fragment:
  - screen_flow.live.attributes
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Configure nginx
  screen_flow.live.config_tree:
    root: /etc/nginx
    files:
      - path: nginx.conf
        content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
      - path: sites-available/screen-flow
        content: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"
    links:
      - path: sites-enabled/screen-flow
        target: ../sites-available/screen-flow
    absent: [sites-enabled/default]
    validate: nginx -t -q -c %s/nginx.conf
"""

RETURN = r"""
paths:
  description: Paths below O(root) that changed, or would change in check mode.
  type: list
  elements: str
  returned: always
"""

import os
import shlex
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

Change = dict[str, Any]


def inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`.

    Raises ValueError when the name is absolute or leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"path {name!r} leads out of {root}; give one below it")
    return root / name


def current(path: Path) -> tuple[str, str]:
    """Return what stands at `path` as (text, state): 'absent', 'link', or mode and owner ('0644 0')."""
    if path.is_symlink():
        return f"-> {path.readlink()}\n", "link"
    if not path.exists():
        return "", "absent"
    status = path.stat()
    return path.read_text(errors="surrogateescape"), f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}"


def wanted_changes(
    root: Path,
    owner: int,
    files: list[dict[str, Any]],
    links: list[dict[str, str]],
    absent: list[str],
) -> list[Change]:
    """Compare what is wanted with what is there, in the order files, links, absent.

    Returns a list of {path, before, state_before, after, state}, one for each path that differs.
    Raises ValueError for a path outside of the folder or a mode that is no octal number.
    """
    changes = []

    def compare(name: str, after: str, state: str, once: bool = False) -> None:
        before, state_before = current(inside(root, name))
        if once and state_before not in ("absent", "link"):
            after = before
        if (before, state_before) != (after, state):
            changes.append(
                {"path": name, "before": before, "state_before": state_before, "after": after, "state": state}
            )

    for file in files:
        compare(file["path"], file["content"], f"{int(file['mode'], 8):04o} {owner}", file["once"])
    for link in links:
        compare(link["path"], f"-> {link['target']}\n", "link")
    for name in absent:
        compare(name, "", "absent")
    return changes


def apply(root: Path, change: Change, folder_mode: int, owner: int) -> None:
    """Make one change under `root`, whole or not at all."""
    path = inside(root, change["path"])
    if change["state"] == "absent":
        path.unlink()
        return
    for folder in reversed([parent for parent in path.parents if root in (parent, *parent.parents)]):
        if not folder.exists():
            folder.mkdir(mode=folder_mode, parents=True)
            os.chown(folder, owner, -1)
    with tempfile.TemporaryDirectory(prefix=".config_tree-", dir=path.parent) as parent:
        temporary = Path(parent) / path.name
        if change["state"] == "link":
            temporary.symlink_to(change["after"][3:-1])
        else:
            temporary.touch(mode=0o600)
            temporary.write_text(change["after"], errors="surrogateescape")
            os.chown(temporary, owner, -1)
            temporary.chmod(int(change["state"].split()[0], 8))
        temporary.replace(path)


def special(folder: str, names: list[str]) -> list[str]:
    """Return what can't be copied: what is neither file, folder nor link, such as a socket."""
    found = []
    for name in names:
        mode = (Path(folder) / name).lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            found.append(name)
    return found


def validate(module: AnsibleModule, root: Path, changes: list[Change], command: str) -> None:
    """Run the check over a staged copy that has the changes; fail the module when it does not pass."""
    argv = shlex.split(command)
    if module.check_mode and not module.get_bin_path(argv[0]):
        return
    # Beside the real folder: relative links that lead out of it keep their meaning.
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=existing_parent(root)) as parent:
        staged = Path(parent)
        if root.is_dir():
            shutil.copytree(root, staged, symlinks=True, dirs_exist_ok=True, ignore=special)
        for change in changes:
            apply(staged, change, 0o700, os.geteuid())
        rc, out, err = module.run_command([word.replace("%s", str(staged)) for word in argv])
        if rc != 0:
            said = (err or out).replace(str(staged), str(root)).strip()
            module.fail_json(
                msg=f"{root} was left as it was: its new content does not pass "
                f"`{command.replace('%s', str(root))}`, which says: {said}",
                rc=rc,
            )


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    return next(parent for parent in path.parents if parent.is_dir())


def main() -> None:
    """Entry point: read the parameters, compare, check a staged copy, then change."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
            "owner": {"type": "int", "default": 0},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "once": {"type": "bool", "default": False},
                },
            },
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "target": {"type": "str", "required": True},
                },
            },
            "absent": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    owner = module.params["owner"]
    try:
        folder_mode = int(module.params["mode"], 8)
        changes = wanted_changes(
            root, owner, module.params["files"], module.params["links"], module.params["absent"]
        )
    except ValueError as error:
        module.fail_json(msg=str(error))
    if changes and module.params["validate"]:
        validate(module, root, changes, module.params["validate"])
    if not module.check_mode:
        for change in changes:
            apply(root, change, folder_mode, owner)
    module.exit_json(
        changed=bool(changes),
        paths=[change["path"] for change in changes],
        diff=[
            {
                "before_header": f"{root / change['path']} ({change['state_before']})",
                "after_header": f"{root / change['path']} ({change['state']})",
                "before": change["before"],
                "after": change["after"],
            }
            for change in changes
        ],
    )


if __name__ == "__main__":
    main()
