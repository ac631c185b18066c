#!/usr/bin/env bash
# ansible-lint 26.10.1 with ansible-core 2.19.14: the rule args[module] reports a required option as missing although the
# play's module_defaults supply it; ansible-playbook runs the same play.
#
# Effect: a collection whose modules take common options from an action group's module_defaults cannot declare these options
# as required in the argument spec, or every task needs a waiver. The option is then checked in the module's own code.
#
# Output seen on 2026-11-28 (Python 3.11):
#   ansible-playbook: exit status 0
#   ansible-lint: play.yml:9: args[module][/]: missing required arguments: path (warning)
#
# Exit status: 0 while this holds, 1 if a release behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ansible-lint==26.10.1 ansible-core==2.19.14
cd "$folder"
cat >play.yml <<'YAML'
---
- name: Read a file's state
  hosts: localhost
  gather_facts: false
  module_defaults:
    ansible.builtin.stat:
      path: /etc/hostname
  tasks:
    - name: Read it
      ansible.builtin.stat:
        get_checksum: false
YAML
printf 'offline: true\nenable_list: [args]\n' >.ansible-lint
export PATH="$folder/venv/bin:$PATH" LC_ALL=C.UTF-8 ANSIBLE_HOME="$folder/home"
status=0
ansible-playbook -i localhost, -c local -e "ansible_python_interpreter=$folder/venv/bin/python" play.yml >/dev/null || status=$?
echo "ansible-playbook: exit status $status"
found=$(ansible-lint --nocolor -f pep8 play.yml 2>/dev/null | grep 'args\[module\]' || true)
echo "ansible-lint: $found"
[ "$status" = 0 ] && [[ "$found" == *"missing required arguments: path"* ]]
