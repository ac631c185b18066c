#!/usr/bin/python
"""Ansible module: gather what already uses a server, so that a run stops before it takes anything away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_facts
short_description: Gather what already uses a server
description:
  - Gathers listening sockets with the programs that hold them, active firewalls, container bridges, installed
    packages and configuration files, in one process.
  - The defaults are what the roles beside this collection look for, so that one task serves all of them.
  - Only reads, so check mode gathers the same.
options:
  packages:
    description: Names of Debian packages to look for.
    type: list
    elements: str
    default: [docker-ce, nginx-common]
  files:
    description: Patterns of absolute paths to look for.
    type: list
    elements: str
    default:
      - /etc/nginx/conf.d/*.conf
      - /etc/nginx/modules-enabled/*.conf
      - /etc/nginx/sites-enabled/*
      - /etc/nginx/upstreams/*.conf
      - /etc/origin-firewall.nft
requirements:
  - ss (Debian's iproute2) for the listeners; without it the list is empty
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Gather what the server already serves
  screen_flow.live.server_facts:

- name: Stop where another program holds port 80
  ansible.builtin.assert:
    that: others | length == 0
    fail_msg: "Port 80 is in use by {{ others | map(attribute='program') | join(', ') }}."
  vars:
    others: >-
      {{ ansible_facts.server.listeners | selectattr('port', 'equalto', 80)
         | rejectattr('program', 'equalto', 'nginx') }}
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: always
  contains:
    server:
      description: What uses the server.
      type: dict
      returned: always
      contains:
        ipv6:
          description: Whether the kernel has IPv6.
          type: bool
          sample: true
        listeners:
          description: Sockets that wait for connections or datagrams.
          type: list
          elements: dict
          contains:
            protocol:
              description: V(tcp) or V(udp).
              type: str
            address:
              description: The address, V(*) for all, without the interface.
              type: str
            port:
              description: The port.
              type: int
            program:
              description: Name of a process that holds the socket; empty where the kernel holds it.
              type: str
            loopback:
              description: Whether only the server itself reaches it.
              type: bool
          sample: [{protocol: tcp, address: 0.0.0.0, port: 22, program: sshd, loopback: false}]
        bridges:
          description: Names of bridge interfaces.
          type: list
          elements: str
          sample: [docker0]
        firewalls:
          description: Those of V(ufw) and V(firewalld) that are active.
          type: list
          elements: str
          sample: [ufw]
        packages:
          description: Those of O(packages) that are installed, with their versions.
          type: dict
          sample: {nginx-common: 1.26.3-3+deb13u1}
        modified_files:
          description: Configuration files of these packages that differ from the packaged ones.
          type: list
          elements: str
          sample: [/etc/nginx/nginx.conf]
        apt_users:
          description: Programs that hold a lock of apt or dpkg, such as the first upgrades of a new server.
          type: list
          elements: str
          sample: [unattended-upgrade (process 812)]
        files:
          description: Paths that match O(files).
          type: list
          elements: str
          sample: [/etc/nginx/conf.d/shop.conf]
"""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

FIREWALLS = ("ufw", "firewalld")
APT_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
PROGRAM = re.compile(r'\(\("([^"]*)"')


def listener(line: str) -> dict[str, Any] | None:
    """Return what a line of `ss --no-header --listening --numeric --tcp --udp --processes` describes.

    None for a line of another form. The columns are those of iproute2 6.1 and 6.15.
    """
    columns = line.split(maxsplit=6)
    if len(columns) < 6:
        return None
    address, _, port = columns[4].rpartition(":")
    address = address.split("%")[0].strip("[]")
    if not port.isdigit():
        return None
    program = PROGRAM.search(columns[6]) if len(columns) > 6 else None
    return {
        "protocol": columns[0],
        "address": address,
        "port": int(port),
        "program": program[1] if program else "",
        "loopback": address != "*" and ipaddress.ip_address(address).is_loopback,
    }


def listeners(module: AnsibleModule) -> list[dict[str, Any]]:
    """Return the listening sockets; none where there is no ss."""
    program = module.get_bin_path("ss")
    if program is None:
        return []
    _, lines, _ = module.run_command(
        [program, "--no-header", "--listening", "--numeric", "--tcp", "--udp", "--processes"], check_rc=True
    )
    found = [one for one in map(listener, lines.splitlines()) if one]
    # A program listens on IPv4 and IPv6 by two sockets, or has one for each of its workers.
    return [one for number, one in enumerate(found) if one not in found[:number]]


def firewalls(module: AnsibleModule) -> list[str]:
    """Return the active firewall services; none where there is no systemd."""
    program = module.get_bin_path("systemctl")
    if program is None:
        return []
    _, states, _ = module.run_command([program, "is-active", *FIREWALLS])
    return [name for name, state in zip(FIREWALLS, states.split(), strict=False) if state == "active"]


def packages(module: AnsibleModule, names: list[str]) -> dict[str, str]:
    """Return the versions of the named packages that are installed."""
    program = module.get_bin_path("dpkg-query")
    if program is None or not names:
        return {}
    form = "${Package} ${db:Status-Status} ${Version}\n"
    _, lines, _ = module.run_command([program, "--show", "--showformat", form, *names])
    described = [line.split(maxsplit=2) for line in lines.splitlines()]
    return {words[0]: words[2] for words in described if len(words) == 3 and words[1] == "installed"}


def modified_files(module: AnsibleModule, names: list[str]) -> list[str]:
    """Return the configuration files of installed packages whose content is not the packaged one."""
    program = module.get_bin_path("dpkg")
    if program is None or not names:
        return []
    # Lines such as `??5?????? c /etc/nginx/nginx.conf`: 5 means another digest, c a configuration file.
    _, lines, _ = module.run_command([program, "--verify", *names])
    described = [line.split(maxsplit=2) for line in lines.splitlines()]
    return [words[2] for words in described if len(words) == 3 and words[1] == "c" and words[0][2:3] == "5"]


def lock_holders(files: Sequence[str]) -> list[str]:
    """Return the programs that hold a lock of one of the files, with their process ids."""
    inodes = {Path(file).stat().st_ino for file in files if Path(file).exists()}
    found = set()
    # Lines such as `1: POSIX  ADVISORY  WRITE 812 08:01:1310 0 EOF`: process, then device and inode. An arrow
    # marks a process that waits.
    for line in Path("/proc/locks").read_text().splitlines():
        columns = line.split()
        if columns[1] == "->" or int(columns[5].rpartition(":")[2]) not in inodes:
            continue
        try:
            name = Path(f"/proc/{columns[4]}/comm").read_text().strip()
        except OSError:
            continue  # it has ended, or belongs to another process namespace
        found.add(f"{name} (process {columns[4]})")
    return sorted(found)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": ["docker-ce", "nginx-common"]},
            "files": {
                "type": "list",
                "elements": "str",
                "default": [
                    "/etc/nginx/conf.d/*.conf",
                    "/etc/nginx/modules-enabled/*.conf",
                    "/etc/nginx/sites-enabled/*",
                    "/etc/nginx/upstreams/*.conf",
                    "/etc/origin-firewall.nft",
                ],
            },
        },
        supports_check_mode=True,
    )
    installed = packages(module, module.params["packages"])
    found = {str(path) for pattern in module.params["files"] for path in Path("/").glob(pattern.lstrip("/"))}
    server = {
        "ipv6": Path("/proc/net/if_inet6").exists(),
        "listeners": listeners(module),
        "bridges": sorted(path.parent.name for path in Path("/sys/class/net").glob("*/bridge")),
        "firewalls": firewalls(module),
        "packages": installed,
        "modified_files": modified_files(module, list(installed)),
        "apt_users": lock_holders(APT_LOCKS),
        "files": sorted(found),
    }
    module.exit_json(changed=False, ansible_facts={"server": server})


if __name__ == "__main__":
    main()
