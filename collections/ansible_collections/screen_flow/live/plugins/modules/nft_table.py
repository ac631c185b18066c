#!/usr/bin/python
"""Ansible module: load one nftables table, and take it back by itself when nobody confirms it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Load an nftables table that takes itself back unless it is confirmed
description:
  - V(loaded) compares the table that the kernel has with the one that O(content) describes. Where they
    differ, it loads the new one as a whole, after a timer was set on the server that puts the old one back.
  - V(kept) ends that timer and writes the rules to O(path), from where a service loads them at boot. Say it
    over a connection that was opened under the new rules. Until then a reboot brings the old rules as well.
  - Both tables are compared as nft prints them, the new one out of a network namespace of its own. So a rule
    that somebody changed by hand is found, and a comment or a different order is no change.
  - Other tables, Docker's among them, are not touched.
options:
  table:
    description: Family and name of the table, such as V(inet origin_firewall).
    type: str
    required: true
  state:
    description: What to do.
    type: str
    choices: [loaded, kept]
    required: true
  path:
    description: The file that the boot loads. Its content is O(content) once that is kept.
    type: path
    required: true
  content:
    description:
      - The rules as a file for V(nft -f). It has to replace the table as a whole, so it begins with
        V(table) and V(delete table).
      - Required for V(loaded).
    type: str
  rollback_after:
    description: Seconds until the old rules come back when the new ones are not kept.
    type: int
    default: 60
requirements:
  - nft 1.0 or later, unshare and systemd-run on the server
extends_documentation_fragment:
  - screen_flow.live.attributes
attributes:
  check_mode:
    support: full
    details: Without nft on the server, a dry run takes the rules unchecked.
  idempotent:
    support: partial
    details: V(kept) fails where nothing waits to be kept.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Load the rules
  screen_flow.live.nft_table:
    table: inet origin_firewall
    state: loaded
    path: /etc/origin-firewall.nft
    content: "{{ lookup('ansible.builtin.template', 'origin-firewall.nft.j2') }}"
  register: rules

- name: Open a new connection
  ansible.builtin.meta: reset_connection

- name: Keep the rules, since they let us in
  screen_flow.live.nft_table:
    table: inet origin_firewall
    state: kept
    path: /etc/origin-firewall.nft
"""

RETURN = r"""
unconfirmed:
  description: Whether new rules are in force that will be taken back unless they are kept.
  type: bool
  returned: always
"""

import os
import re
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Gone after a reboot, and so are rules that were not kept.
PENDING = Path("/run")
LIST_IN_A_NAMESPACE = 'nft -f "$1" && nft --stateless list table $2'


class Table:
    """One table of the kernel, and the files that belong to it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.table: str = module.params["table"]
        self.path = Path(module.params["path"])
        unit = re.sub(r"[^a-z0-9]+", "-", self.table.split()[1].lower())
        self.unit = f"{unit}-rollback"
        self.new = PENDING / f"{unit}.new.nft"
        self.old = PENDING / f"{unit}.old.nft"

    def run(self, *argv: str) -> str:
        """Run a program and return what it printed; fail the module with its own words."""
        rc, out, err = self.module.run_command(list(argv))
        if rc != 0:
            self.module.fail_json(msg=f"`{' '.join(argv)}` says: {(err or out).strip()}", rc=rc)
        return str(out)

    def live(self) -> str:
        """Return the table as the kernel has it, without counts; empty when it has none."""
        if self.table not in re.findall(
            r"^table (\w+ \S+)$", self.run("nft", "list", "tables"), re.MULTILINE
        ):
            return ""
        return self.run("nft", "--stateless", "list", "table", *self.table.split())

    def described(self, content: str) -> str:
        """Return the table that `content` describes, as nft prints it; fail when nft refuses it."""
        with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
            file.write(content)
            file.flush()
            rc, out, err = self.module.run_command(
                ["unshare", "--net", "sh", "-c", LIST_IN_A_NAMESPACE, "sh", file.name, self.table]
            )
        if rc != 0:
            self.module.fail_json(
                msg=f"The table {self.table} was left as it was: its new rules do not pass `nft -f`, which "
                "says: " + err.replace(file.name, str(self.path)).strip(),
                rc=rc,
            )
        return str(out)

    def load(self, content: str, before: str, seconds: int) -> None:
        """Put `content` in force, after a timer was set that puts `before` back in `seconds`."""
        self.stop_timer()
        write(self.new, content)
        write(self.old, f"table {self.table}\ndelete table {self.table}\n{before}")
        undo = f"nft -f {self.old} && rm -f {self.old} {self.new}"
        self.run(
            "systemd-run", "--collect", f"--unit={self.unit}", f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s", "--description=Take back rules that nobody confirmed",
            "sh", "-c", undo,
        )  # fmt: skip
        self.run("nft", "-f", str(self.new))

    def keep(self) -> None:
        """End the timer and make the pending rules those of the boot; fail when there are none."""
        self.stop_timer()
        if not self.new.exists():
            self.module.fail_json(
                msg=f"There are no new rules of {self.table} to keep: they were taken back before they were "
                "confirmed, and the old ones are in force. Load them again, with more time if it stays so."
            )
        if self.module.check_mode:
            return
        write(self.path, self.new.read_text())
        self.drop_pending()

    def stop_timer(self) -> None:
        """Stop the timer; one that is over is not there any more."""
        if not self.module.check_mode:
            self.module.run_command(["systemctl", "stop", f"{self.unit}.timer"])

    def drop_pending(self) -> None:
        """Forget rules that wait to be confirmed."""
        for file in (self.new, self.old):
            file.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a file for root alone, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    temporary.touch(0o600, exist_ok=False)
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main() -> None:
    """Entry point: read the parameters, compare, load or keep."""
    module = AnsibleModule(
        argument_spec={
            "table": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["loaded", "kept"], "required": True},
            "path": {"type": "path", "required": True},
            "content": {"type": "str"},
            "rollback_after": {"type": "int", "default": 60},
        },
        required_if=[("state", "loaded", ["content"])],
        supports_check_mode=True,
    )
    given: str = module.params["table"]
    if not re.fullmatch(r"(ip|ip6|inet) [a-zA-Z][a-zA-Z0-9_]*", given):
        module.fail_json(msg=f"table is '{given}'; give family and name, such as inet origin_firewall.")
    if module.params["rollback_after"] < 1:
        module.fail_json(msg=f"rollback_after is {module.params['rollback_after']}; give seconds above 0.")
    table = Table(module)
    if module.params["state"] == "kept":
        table.keep()
        module.exit_json(changed=True, unconfirmed=False)

    content: str = module.params["content"]
    if module.check_mode and not module.get_bin_path("nft"):
        before, after = "", content
    else:
        before, after = table.live(), table.described(content)
    stored = table.path.read_text() if table.path.exists() else ""
    if not module.check_mode:
        if before != after:
            table.load(content, before, module.params["rollback_after"])
        elif not table.new.exists() and stored != content:
            write(table.path, content)
    module.exit_json(
        changed=before != after or stored != content,
        unconfirmed=table.new.exists(),
        diff=[
            {"before_header": given, "after_header": given, "before": before, "after": after},
            {
                "before_header": str(table.path),
                "after_header": str(table.path),
                "before": stored,
                "after": content,
            },
        ],
    )


if __name__ == "__main__":
    main()
