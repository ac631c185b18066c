from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# Before the tests import from the collection: Ansible's loader then serves those imports as well.
init_plugin_loader([str(Path(__file__).parents[2] / "collections")])
