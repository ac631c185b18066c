"""Renders a role's templates with no host: Ansible's own templar, the role's own defaults."""

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template


def rendered(role: Path, template: str, **variables: Any) -> str:
    """Return the text of a role's template; an undefined variable raises."""
    loader = DataLoader()
    loader.set_basedir(str(role))
    every: dict[str, Any] = {
        "role_path": str(role),
        "ansible_facts": {"distribution_major_version": "13"},
    }
    for file in (role / "defaults/main.yml", role / "vars/main.yml"):
        if file.exists():
            every |= loader.load_from_file(str(file), trusted_as_template=True)
    source = trust_as_template((role / "templates" / template).read_text())
    return str(Templar(loader, variables=every | variables).template(source, convert_data=False))
