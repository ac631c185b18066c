"""What the documentation of all Cloudflare modules has in common: the arguments of `api_arguments`."""


class ModuleDocFragment:
    """Ansible's entry point."""

    DOCUMENTATION = r"""
options:
  zone:
    description: Name of the zone, in lower case. Exactly one of O(zone) and O(zone_id) is needed.
    type: str
  zone_id:
    description: Id of the zone, 32 hexadecimal digits. It saves one request.
    type: str
  api_token:
    description:
      - API token for the zone; each module says which permissions it needs, Zone Read beside them.
      - Not given, the environment variable E(CLOUDFLARE_API_TOKEN) is read. No other credential is ever used,
        and the token appears in no output.
    type: str
  api_base_url:
    description: Address of the API. Only on this machine itself may it begin with http://.
    type: str
    default: https://api.cloudflare.com/client/v4
  wait_seconds:
    description: Seconds that the task may wait for Cloudflare's rate limit, all its calls together.
    type: int
    default: 900
  progress_file:
    description: File that takes a sentence before each wait; the project's action plugin shows it at once.
    type: path
requirements:
  - cloudflare 5.9.0, where the module runs
"""
