"""Loads the collection as Ansible's controller does, before the tests import from it."""

import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# A suite of the same run may have imported the collection without the controller, which adds its metadata.
for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
    del sys.modules[name]
init_plugin_loader([str(Path(__file__).parents[2] / "collections")])
