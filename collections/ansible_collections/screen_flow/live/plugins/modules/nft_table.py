#!/usr/bin/python
"""Ansible module: load an nftables table that is rolled back unless it is confirmed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Load an nftables table that is rolled back unless it is confirmed
description:
  - A firewall rule that locks out its author can't be corrected remotely. This module therefore loads rules
    in two steps, with a rollback timer on the host between them.
  - O(state=loaded) compares the table in the kernel with O(content). If they differ, it starts the timer
    and loads the new table as a whole. Unless the rules are confirmed, the timer restores the old table.
  - O(state=kept) confirms them. It stops the timer and writes the rules to O(path), which a service loads
    at boot. Run it over a connection that was opened under the new rules. Until then a reboot also restores
    the old rules.
  - Both tables are compared in the form that nft prints, so a rule that was changed by hand is a
    difference, but a comment or the formatting of O(content) is not.
options:
  table:
    description: Family (V(ip), V(ip6) or V(inet)) and name of the table, as in V(inet origin_firewall).
    type: str
    required: true
  state:
    description: V(loaded) loads the rules with a rollback timer, V(kept) confirms them.
    type: str
    choices: [loaded, kept]
    required: true
  path:
    description: File that a service loads at boot. V(kept) writes the confirmed rules to it.
    type: path
    required: true
  content:
    description:
      - The rules, as a file for C(nft -f). They must replace the table as a whole, so they begin with
        C(table FAMILY NAME) and C(delete table FAMILY NAME), as in the example.
      - Required for O(state=loaded).
    type: str
  rollback_after:
    description: Seconds after which the old rules are restored if the new ones are not confirmed.
    type: int
    default: 60
requirements:
  - nft 1.0 or later, unshare of util-linux and systemd-run on the host
  - Python 3.11 or later on the host
notes:
  - Other tables, such as Docker's, are not changed.
  - The module does not install a service that loads O(path) at boot. Debian's C(nftables.service) loads
    C(/etc/nftables.conf), which can include it.
  - The new rules are checked and printed in a separate network namespace, so an invalid O(content)
    fails the task before anything changes.
  - If a playbook is interrupted between the two states, the next run with O(state=loaded) reports the
    pending rules in RV(unconfirmed).
seealso:
  - module: ansible.builtin.meta
    description: C(reset_connection) makes the next task open a new connection.
  - module: ansible.builtin.iptables
  - name: nftables wiki
    description: Documentation of nft and its rules.
    link: https://wiki.nftables.org/
extends_documentation_fragment: [screen_flow.live.attributes]
attributes:
  check_mode:
    support: full
    details: While nft is not installed on the host, check mode does not validate the rules.
  idempotent:
    support: partial
    details: V(kept) fails if no rules are pending.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Load rules that admit SSH and the ports of the site
  screen_flow.live.nft_table:
    table: inet site
    state: loaded
    path: /etc/site.nft
    content: |
      table inet site
      delete table inet site
      table inet site {
        chain input {
          type filter hook input priority filter; policy drop;
          ct state established,related accept
          iif lo accept
          tcp dport { 22, 80, 443 } accept
        }
      }
  register: rules

- name: Open a new connection, under the new rules
  ansible.builtin.meta: reset_connection

- name: Confirm the rules
  screen_flow.live.nft_table:
    table: inet site
    state: kept
    path: /etc/site.nft
  when: rules.unconfirmed
"""

RETURN = r"""
unconfirmed:
  description: Whether new rules are loaded that will be rolled back unless they are confirmed.
  type: bool
  returned: success
  sample: true
"""

import os
import re
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Emptied by a reboot, which also drops rules that were not confirmed.
PENDING = Path("/run")
LOAD_AND_LIST = 'nft -f "$1" && nft --stateless list table $2'


class Table:
    """A table in the kernel, and the files of its pending change."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.table: str = module.params["table"]
        self.path = Path(module.params["path"])
        unit = re.sub(r"[^a-z0-9]+", "-", self.table.split()[1].lower())
        self.unit = f"{unit}-rollback"
        self.new = PENDING / f"{unit}.new.nft"
        self.old = PENDING / f"{unit}.old.nft"

    def run(self, *argv: str) -> str:
        """Run a program and return its output; fail the module if the program fails."""
        rc, out, err = self.module.run_command(list(argv))
        if rc != 0:
            self.module.fail_json(
                msg=f"`{' '.join(argv)}` failed (exit status {rc}): {(err or out).strip()}", rc=rc
            )
        return str(out)

    def live(self) -> str:
        """Return the kernel's table without counters; empty if it does not exist."""
        if self.table not in re.findall(
            r"^table (\w+ \S+)$", self.run("nft", "list", "tables"), re.MULTILINE
        ):
            return ""
        return self.run("nft", "--stateless", "list", "table", *self.table.split())

    def described(self, content: str) -> str:
        """Return the table in `content` as nft prints it; fail the module if nft rejects it."""
        with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
            file.write(content)
            file.flush()
            rc, out, err = self.module.run_command(
                ["unshare", "--net", "sh", "-c", LOAD_AND_LIST, "sh", file.name, self.table]
            )
        if rc != 0:
            self.module.fail_json(
                msg=f"The table {self.table} was left as it was: nft rejects its new rules: "
                + err.replace(file.name, str(self.path)).strip(),
                rc=rc,
            )
        return str(out)

    def load(self, content: str, before: str, seconds: int) -> None:
        """Load `content`, after starting a timer that restores `before` after `seconds`."""
        self.stop_timer()
        write(self.new, content)
        write(self.old, f"table {self.table}\ndelete table {self.table}\n{before}")
        undo = f"nft -f {self.old} && rm -f {self.old} {self.new}"
        self.run(
            "systemd-run", "--collect", f"--unit={self.unit}", f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s", "--description=Roll back unconfirmed rules",
            "sh", "-c", undo,
        )  # fmt: skip
        self.run("nft", "-f", str(self.new))

    def keep(self) -> None:
        """Stop the timer and make the pending rules those of the next boot; fail if there are none."""
        self.stop_timer()
        if not self.new.exists():
            self.module.fail_json(
                msg=f"No rules of {self.table} are pending: they were rolled back before they were "
                "confirmed, and the old ones are active. Load them again, maybe with a larger rollback_after."
            )
        if self.module.check_mode:
            return
        write(self.path, self.new.read_text())
        self.drop_pending()

    def stop_timer(self) -> None:
        """Stop the timer, if it has not expired."""
        if not self.module.check_mode:
            self.module.run_command(["systemctl", "stop", f"{self.unit}.timer"])

    def drop_pending(self) -> None:
        """Remove the files of the pending change."""
        for file in (self.new, self.old):
            file.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a file that only root can read, completely or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    temporary.touch(0o600, exist_ok=False)
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main() -> None:
    """Entry point: compare, then load or keep."""
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
    name: str = module.params["table"]
    if not re.fullmatch(r"(ip|ip6|inet) [a-zA-Z][a-zA-Z0-9_]*", name):
        module.fail_json(msg=f"table is '{name}': use family and name, such as inet origin_firewall.")
    if module.params["rollback_after"] < 1:
        module.fail_json(msg=f"rollback_after is {module.params['rollback_after']}: use a number above 0.")
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
            {"before_header": name, "after_header": name, "before": before, "after": after},
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
