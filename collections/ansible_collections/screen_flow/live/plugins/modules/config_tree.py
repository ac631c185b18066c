#!/usr/bin/python
"""Ansible module: change a set of configuration files as one, after the whole set passed a check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Change a set of configuration files as one, validated as a whole
description:
  - Manages files and symbolic links in one directory. The differences are first applied to a staged copy of
    the directory, and O(validate) checks that copy as a whole. Only if the check passes, the directory
    changes.
  - If the check fails, the directory stays as it was, so the service that reads it keeps its working
    configuration, and the task fails with the check's output.
  - This suits configurations whose files are valid only together, such as those of nginx, where
    M(ansible.builtin.template) with its own O(ansible.builtin.template#module:validate) can check each file
    only by itself. It also replaces a task per file by one.
options:
  root:
    description: Absolute path of the directory. It is created if it does not exist.
    type: path
    required: true
  mode:
    description: Permissions, as octal digits, of O(root) and directories in it that the module creates.
    type: str
    default: "0755"
  owner:
    description: Numeric id of the user who owns the files, and the directories that the module creates.
    type: int
    default: 0
  files:
    description: The files, with their complete content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path relative to O(root).
        type: str
        required: true
      content:
        description: Content as text.
        type: str
        required: true
      mode:
        description: Permissions as octal digits.
        type: str
        default: "0644"
      once:
        description: Keep the content of a file that exists. Its permissions and its owner are managed.
        type: bool
        default: false
  links:
    description: The symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      target:
        description: Target of the link, absolute or relative to the link's directory.
        type: str
        required: true
      path:
        description: Path relative to O(root).
        type: str
        required: true
  absent:
    description: Paths, relative to O(root), of files and links to remove.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Command that checks the staged copy; V(%s) is replaced by the copy's path. No shell interprets it.
      - It runs only if something differs. In check mode it is skipped while the program is not installed.
    type: str
requirements:
  - Python 3.11 or later on the host
notes:
  - Files that are not named stay as they are; they are part of the staged copy. Sockets and other special
    files are not.
  - The check reads the copy, so the configuration must refer to its parts by relative paths, or the command
    must take the directory as an argument. In the check's output the copy's path is replaced by O(root).
  - Each file is replaced atomically. The set as a whole is not; a service should be reloaded after the
    task, by a handler.
  - The diff contains the files' content. Use C(no_log) or C(diff=false) for secrets.
seealso:
  - module: ansible.builtin.template
  - module: ansible.builtin.copy
extends_documentation_fragment: [screen_flow.live.attributes]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Configure nginx
  screen_flow.live.config_tree:
    root: /etc/nginx
    files:
      - path: nginx.conf
        content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
      - path: sites-available/shop
        content: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"
    links:
      - path: sites-enabled/shop
        target: ../sites-available/shop
    absent: [sites-enabled/default]
    validate: nginx -t -q -c %s/nginx.conf
  notify: Reload nginx

- name: Configure sudo for the operators
  screen_flow.live.config_tree:
    root: /etc/sudoers.d
    files:
      - path: operators
        mode: "0440"
        content: |
          %operators ALL=(ALL) NOPASSWD: ALL
    validate: visudo -cf %s/operators

- name: Generate a secret once and keep it
  screen_flow.live.config_tree:
    root: /etc/shop
    mode: "0700"
    files:
      - path: session.key
        mode: "0400"
        content: "{{ lookup('ansible.builtin.password', '/dev/null', length=64) }}"
        once: true
  no_log: true
"""

RETURN = r"""
paths:
  description: Paths, relative to O(root), that changed or would change in check mode.
  type: list
  elements: str
  returned: success
  sample: [nginx.conf, sites-available/shop, sites-enabled/shop, sites-enabled/default]
rc:
  description: Exit status of O(validate).
  type: int
  returned: when the check failed
  sample: 1
"""

import os
import shlex
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

Change = dict[str, Any]
TEMPORARY = ".config_tree-"  # prefix of the module's temporary directories
LEFT_OVER = 3600  # seconds after which such a directory belongs to a run that was killed
FILE_OPTIONS = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0644"},
    "once": {"type": "bool", "default": False},
}
LINK_OPTIONS = {
    "target": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
}


def resolve(root: Path, name: str) -> Path:
    """Return the path of `name` in `root`; raises ValueError for one that is absolute or leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"path is '{name}', which leads out of {root}: use a relative path in it.")
    return root / name


def current(path: Path) -> tuple[str, str]:
    """Return content and state of `path`; the state is 'absent', 'link', or mode and owner ('0644 0')."""
    if path.is_symlink():
        return f"-> {path.readlink()}\n", "link"
    if not path.exists():
        return "", "absent"
    status = path.stat()
    return path.read_text(errors="surrogateescape"), f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}"


def find_changes(
    root: Path,
    owner: int,
    files: list[dict[str, Any]],
    links: list[dict[str, str]],
    absent: list[str],
) -> list[Change]:
    """Return {path, before, state_before, after, state} of every difference: files, links, absent.

    Raises ValueError for a path outside the directory and for a mode that is not octal.
    """
    changes = []

    def compare(name: str, after: str, state: str, once: bool = False) -> None:
        before, state_before = current(resolve(root, name))
        if once and state_before not in ("absent", "link"):
            after = before
        if (before, state_before) != (after, state):
            changes.append(
                {"path": name, "before": before, "state_before": state_before, "after": after, "state": state}
            )

    for file in files:
        mode = parse_mode(file["mode"])
        compare(file["path"], file["content"], f"{mode:04o} {owner}", file["once"])
    for link in links:
        compare(link["path"], f"-> {link['target']}\n", "link")
    for name in absent:
        compare(name, "", "absent")
    return changes


def parse_mode(text: str) -> int:
    """Return permissions from octal digits; raises ValueError for anything else."""
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"mode is '{text}': use octal digits, such as \"0644\".") from None


def apply(root: Path, change: Change, directory_mode: int, owner: int) -> None:
    """Make one change in `root`, completely or not at all."""
    path = resolve(root, change["path"])
    if change["state"] == "absent":
        path.unlink()
        return
    for directory in reversed([parent for parent in path.parents if root in (parent, *parent.parents)]):
        if not directory.exists():
            directory.mkdir(mode=directory_mode, parents=True)
            os.chown(directory, owner, -1)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as parent:
        temporary = Path(parent) / path.name
        if change["state"] == "link":
            temporary.symlink_to(change["after"][3:-1])
        else:
            temporary.touch(mode=0o600)
            temporary.write_text(change["after"], errors="surrogateescape")
            os.chown(temporary, owner, -1)
            temporary.chmod(int(change["state"].split()[0], 8))
        temporary.replace(path)


def remove_left_over(root: Path, paths: list[str]) -> None:
    """Remove the temporary directories of runs that were killed, which may hold copies of secrets."""
    places = {existing_parent(root), *(resolve(root, path).parent for path in paths)}
    for directory in (found for place in places for found in place.glob(f"{TEMPORARY}*")):
        if directory.is_dir() and time.time() - directory.stat().st_mtime > LEFT_OVER:
            shutil.rmtree(directory, ignore_errors=True)


def special_files(directory: str, names: list[str]) -> list[str]:
    """Return the names that can't be copied: neither file, directory nor link, such as a socket."""
    found = []
    for name in names:
        mode = (Path(directory) / name).lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            found.append(name)
    return found


def validate(module: AnsibleModule, root: Path, changes: list[Change], command: str) -> None:
    """Run the check over a staged copy with the changes; fail the module if it does not pass."""
    argv = shlex.split(command)
    if module.check_mode and not module.get_bin_path(argv[0]):
        return
    # In the same parent as the real directory, so that relative links that lead out of it stay valid.
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=existing_parent(root)) as parent:
        staged = Path(parent)
        if root.is_dir():
            shutil.copytree(root, staged, symlinks=True, dirs_exist_ok=True, ignore=special_files)
        for change in changes:
            apply(staged, change, 0o700, os.geteuid())
        rc, out, err = module.run_command([word.replace("%s", str(staged)) for word in argv])
        if rc != 0:
            output = (err or out).replace(str(staged), str(root)).strip()
            module.fail_json(
                msg=f"{root} was left as it was: with the new content "
                f"`{command.replace('%s', str(root))}` fails (exit status {rc}): {output}",
                rc=rc,
            )


def existing_parent(path: Path) -> Path:
    """Return the nearest directory above `path` that exists."""
    return next(parent for parent in path.parents if parent.is_dir())


def main() -> None:
    """Entry point: compare, check a staged copy, then change."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
            "owner": {"type": "int", "default": 0},
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_OPTIONS},
            "links": {"type": "list", "elements": "dict", "default": [], "options": LINK_OPTIONS},
            "absent": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    owner = module.params["owner"]
    try:
        directory_mode = parse_mode(module.params["mode"])
        changes = find_changes(
            root, owner, module.params["files"], module.params["links"], module.params["absent"]
        )
    except ValueError as error:
        module.fail_json(msg=str(error))
    if changes and module.params["validate"]:
        validate(module, root, changes, module.params["validate"])
    if not module.check_mode:
        named = [item["path"] for item in module.params["files"] + module.params["links"]]
        remove_left_over(root, named + module.params["absent"])
        for change in changes:
            apply(root, change, directory_mode, owner)
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
