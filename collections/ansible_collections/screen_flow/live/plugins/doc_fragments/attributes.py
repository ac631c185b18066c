"""Documentation fragments: what a module supports; a module documents only where it differs."""


class ModuleDocFragment:
    """Ansible's entry point."""

    # A module that makes changes.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Whether the module predicts its changes in check mode and makes none.
    support: full
  diff_mode:
    description: Whether the module shows its changes in diff mode.
    support: full
  idempotent:
    description: Whether a second run with the same options changes nothing.
    support: full
"""

    # A module that shows no diff. Annotated, because ansible-test takes plain assignments for literals.
    READ_ONLY: str = DOCUMENTATION.replace(
        "in diff mode.\n    support: full", "in diff mode.\n    support: none"
    )
