"""What the modules support; a module states only where it differs."""


class ModuleDocFragment:
    """Ansible's entry point."""

    # Of a module that changes something.
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

    # Of a module that only reads.
    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    description: Whether the module predicts its changes in check mode and makes none.
    support: full
  diff_mode:
    description: Whether the module shows its changes in diff mode.
    support: none
  idempotent:
    description: Whether a second run with the same options changes nothing.
    support: full
"""

    # Of a module whose token and address module_defaults can give to the whole group.
    GROUP_CLOUDFLARE = r"""
options: {}
attributes:
  action_group:
    description: Whether C(module_defaults) can set the common options of the group named here.
    support: full
    membership:
      - screen_flow.live.cloudflare
"""
