"""Documentation of the targets that the probing modules take: `TARGET_SPEC`."""


class ModuleDocFragment:
    """Ansible's entry point."""

    DOCUMENTATION = r"""
options:
  targets:
    description: What to probe.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of this target in the results.
        type: str
        required: true
      url:
        description:
          - A URL that starts with ws://, wss://, http:// or https://.
          - Its host is sent as the Host header and as the TLS server name.
        type: str
        required: true
      address:
        description: Connect to this name or IP address instead of the URL's host.
        type: str
      port:
        description: Connect to this port instead of the URL's.
        type: int
      until:
        description:
          - The last stage to probe. By default V(pong) for a WebSocket URL and V(http) for the others.
          - At V(http), a WebSocket URL must answer 101 and the others a status from 200 to 399.
        type: str
        choices: [dns, tcp, tls, http, pong]
      verify:
        description: Whether the certificate must be valid for the URL's host.
        type: bool
        default: true
      ca_file:
        description: PEM file of the authorities to trust instead of the system's.
        type: path
      origin:
        description: The Origin header. By default none is sent.
        type: str
      cookie:
        description: The Cookie header, V(name=value). It appears in no output.
        type: str
      healthy_close_codes:
        description: Close codes to accept in place of a pong, such as 4401 where no session is given.
        type: list
        elements: int
        default: []
      timeout:
        description: Seconds for this target.
        type: float
        default: 5
"""

    # One target instead of a list; annotated, since ansible-test takes plain assignments for literals.
    SINGLE: str = DOCUMENTATION.replace("  targets:", "  target:").replace(
        "type: list\n    elements: dict\n    required", "type: dict\n    required"
    )
