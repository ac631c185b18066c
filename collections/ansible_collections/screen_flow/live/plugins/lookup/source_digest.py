"""Ansible lookup: a digest of the content of source folders."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_digest
short_description: Compute a digest of the content of source folders
description:
  - Returns the first 12 hexadecimal digits of a SHA-256 over the names, executable bits and content of all
    files in the given folders on the control node. The same source has the same digest on every machine,
    whatever the files' times, so the digest can tag what was built from it.
options:
  _terms:
    description: Absolute paths of the folders. Their base names are part of the digest, their parents not.
    type: list
    elements: str
    required: true
  exclude:
    description: Names of files and folders to leave out, at any depth.
    type: list
    elements: str
    default: []
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Show the tag of an image
  ansible.builtin.debug:
    msg: "{{ lookup('screen_flow.live.source_digest', '/srv/project/app', exclude=['__pycache__']) }}"
"""

RETURN = r"""
_raw:
  description: A list with one digest of 12 hexadecimal digits.
  type: list
  elements: str
  sample: [3f786850e387]
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def source_files(folder: Path, exclude: set[str]) -> list[Path]:
    """Return the files in `folder`, sorted by name, without the excluded ones."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name in exclude:
            continue
        if path.is_dir() and not path.is_symlink():
            found += source_files(path, exclude)
        else:
            found.append(path)
    return found


def digest(folders: list[Path], exclude: set[str]) -> str:
    """Return 12 hexadecimal digits over the files' names, executable bits and content.

    Raises OSError when a folder is missing or a file can't be read.
    """
    total = hashlib.sha256()
    for folder in folders:
        for path in source_files(folder, exclude):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            executable = bool(path.stat().st_mode & 0o100)
            total.update(f"{folder.name}/{path.relative_to(folder)}\0{executable}\0{content}\n".encode())
    return total.hexdigest()[:12]


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return a list with the digest; raises AnsibleLookupError when a folder can't be read."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [digest([Path(term) for term in terms], set(self.get_option("exclude")))]
        except OSError as error:
            raise AnsibleLookupError(
                f"source_digest can't read {error.filename} ({error.strerror}): use folders that exist."
            ) from error
