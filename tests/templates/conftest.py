"""Renders a role's templates with no host: Ansible's own templar, the role's own defaults."""

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[2] / "roles"


def role_variables(role: str) -> dict:
    """Return the role's defaults and variables as Ansible reads them."""
    loader = DataLoader()
    files = [ROLES / role / "defaults/main.yml", ROLES / role / "vars/main.yml"]
    variables = {"role_path": str(ROLES / role), "ansible_facts": {"distribution_major_version": "13"}}
    for file in filter(Path.exists, files):
        variables |= loader.load_from_file(str(file), trusted_as_template=True)
    return variables


@pytest.fixture
def render():
    """Return render(role, template, **variables): the text; an undefined variable raises."""

    def call(role: str, template: str, **variables) -> str:
        loader = DataLoader()
        loader.set_basedir(str(ROLES / role))
        source = (ROLES / role / "templates" / template).read_text()
        templar = Templar(loader, variables=role_variables(role) | variables)
        return templar.template(trust_as_template(source), convert_data=False)

    return call
