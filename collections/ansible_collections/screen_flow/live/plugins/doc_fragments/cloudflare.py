"""Documentation fragment: what the Cloudflare modules share; see module_utils/cloudflare/module.py."""


class ModuleDocFragment:
    """Ansible's entry point."""

    DOCUMENTATION = r"""
options:
  zone:
    description: Name of the zone, in lower case. Either O(zone) or O(zone_id) is required.
    type: str
  zone_id:
    description:
      - Id of the zone, 32 hexadecimal digits. Needed where the name exists in several accounts; without
        O(zone), it saves the request that searches for the name.
      - With O(zone), the task fails where the zone has another name.
    type: str
  api_token:
    description:
      - API token for the zone, with the permission Zone Read and those that the notes name. Required.
      - Falls back to the environment variable E(CLOUDFLARE_API_TOKEN). No other credential is used, and the
        token appears in no output.
    type: str
  api_base_url:
    description: Address of the API. V(http://) is accepted only for this machine, as for an emulator.
    type: str
    default: https://api.cloudflare.com/client/v4
  wait_seconds:
    description: Seconds that the task may spend waiting for Cloudflare's rate limit, all requests together.
    type: int
    default: 900
  progress_file:
    description: File that receives a line before each wait. The action plugin sets it, to show them at once.
    type: path
attributes:
  action_group:
    description: Whether C(module_defaults) can set the options common to the modules of this group.
    support: full
    membership:
      - screen_flow.live.cloudflare
requirements:
  - Python 3.11 or later and the Python package cloudflare 5.9.0, on the machine that runs the module
notes:
  - The module sends its requests from the machine that runs it, usually by C(delegate_to=localhost).
"""
