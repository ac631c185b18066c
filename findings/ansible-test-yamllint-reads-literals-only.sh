#!/usr/bin/env bash
# ansible-core 2.19.14: the sanity test yamllint ends with a traceback at a documentation fragment in which one attribute is
# computed from another. ansible-doc reads the fragment, and validate-modules accepts it.
#
# Effect: two modules that share suboptions under different names need the same text twice. An annotated assignment
# (`NAME: str = ...`) is not inspected and therefore passes.
#
# Output seen on 2026-11-28 (Python 3.11):
#   validate-modules: exit status 0
#   yamllint: AttributeError: 'Call' object has no attribute 'value'
#
# Exit status: 0 while this holds, 1 if a release behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ansible-core==2.19.14
export PATH="$folder/venv/bin:$PATH" HOME="$folder/home" LC_ALL=C.UTF-8
# In place of the script that ansible-test fetches to install pip.
mkdir -p "$HOME/.ansible/test/cache"
printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"$HOME/.ansible/test/cache/get_pip_24_2.py"
collection=$folder/ansible_collections/example/demo
mkdir -p "$collection"/plugins/{modules,doc_fragments}
cd "$collection"
printf 'namespace: example\nname: demo\nversion: 1.0.0\nreadme: README.md\nauthors: [A (@a)]\n' >galaxy.yml
mkdir meta && printf -- '---\nrequires_ansible: ">=2.19"\n' >meta/runtime.yml
cat >plugins/doc_fragments/shared.py <<'PYTHON'
"""Shared documentation."""


class ModuleDocFragment:
    """Two options that differ by their name."""

    DOCUMENTATION = r"""
options:
  one:
    description: A name.
    type: str
"""
    OTHER = DOCUMENTATION.replace("one:", "other:")
PYTHON
cat >plugins/modules/demo.py <<'PYTHON'
#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: demo
short_description: Do nothing
description: Does nothing.
extends_documentation_fragment: [example.demo.shared.other]
author: [A (@a)]
"""
EXAMPLES = r"""
- name: Do nothing
  example.demo.demo:
"""
RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule


def main():
    """Do nothing."""
    AnsibleModule(argument_spec={"other": {"type": "str"}}).exit_json()


if __name__ == "__main__":
    main()
PYTHON
git init -q && git add -A
version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
status=0
ansible-test sanity --python "$version" --test validate-modules >log 2>&1 || status=$?
echo "validate-modules: exit status $status"
ansible-test sanity --python "$version" --test yamllint >yamllint.log 2>&1 || true
error=$(grep -o "AttributeError: .*value'" yamllint.log || true)
echo "yamllint: $error"
[ "$status" = 0 ] && [ "$error" = "AttributeError: 'Call' object has no attribute 'value'" ]
