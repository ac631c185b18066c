"""Ansible lookup: the networks that Cloudflare's edge connects from, with a copy for when its API is away."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cloudflare_ip_ranges
short_description: List the networks of Cloudflare's edge
description:
  - Returns the networks that Cloudflare's API publishes, IPv4 before IPv6. Needs no token and sends none.
  - Each answer is kept in O(cache_file) on the control node. A copy younger than O(max_age) is taken without
    asking, so a variable that uses this lookup may be read a hundred times in a run.
  - Where no usable answer comes, the copy is taken with a warning, however old it is; the API is asked again
    after a minute.
  - An answer that would shut Cloudflare out (no IPv4 network) or let the world in (a network wider than /8,
    or /16 for IPv6) fails the lookup, and the copy stays as it was.
options:
  cache_file:
    description:
      - File on the control node for the last good answer; its folder must exist.
      - It is written only when the list changes, so it can live in version control; its time says when the
        API was asked last.
    type: path
    required: true
  api_base_url:
    description: Address of the API; elsewhere only for an emulated Cloudflare.
    type: str
    default: https://api.cloudflare.com/client/v4
  max_age:
    description: Seconds for which a copy is taken without asking. V(0) asks each time.
    type: int
    default: 3600
requirements:
  - cloudflare
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('screen_flow.live.cloudflare_ip_ranges', cache_file='/var/cache/edge-ranges.json') }}"
"""

RETURN = r"""
_raw:
  description: Networks in CIDR notation, as in V(173.245.48.0/20), IPv4 before IPv6.
  type: list
  elements: str
"""

import ipaddress
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

# The shortest prefix of a network that is one company's. Cloudflare's own are /12 and /29 at the widest.
WIDEST = {4: 8, 6: 16}
TRIES = 2
ANSWER_SECONDS = 10.0
# After a failure the copy counts as fresh for so long: a run must not wait for a dead API at every use.
PAUSE_SECONDS = 60


class NoAnswerError(Exception):
    """The API gave no list; the text says why."""


def check(result: Any) -> dict[str, Any]:
    """Return etag, day, ipv4_cidrs and ipv6_cidrs of an answer's `result`, networks in order of address.

    The day is the one on which the list was first seen, which only a copy holds. Raises ValueError with a
    sentence for a list that must not be used.
    """
    if not isinstance(result, dict):
        raise ValueError("it is no object")
    checked: dict[str, Any] = {"day": result.get("day"), "etag": str(result.get("etag", ""))}
    for version in (4, 6):
        cidrs = result.get(f"ipv{version}_cidrs") or []
        if not isinstance(cidrs, list):
            raise ValueError(f"ipv{version}_cidrs is '{cidrs}', which is no list")
        networks = []
        for cidr in cidrs:
            network = ipaddress.ip_network(cidr)
            if network.version != version:
                raise ValueError(f"{cidr} stands in ipv{version}_cidrs")
            if network.prefixlen < WIDEST[version]:
                raise ValueError(f"{cidr} is wider than /{WIDEST[version]}, too wide to be Cloudflare's")
            networks.append(network)
        checked[f"ipv{version}_cidrs"] = [str(network) for network in sorted(networks)]
    if not checked["ipv4_cidrs"]:
        raise ValueError("it lists no IPv4 network, which would shut Cloudflare out")
    return checked


def ask(api_base_url: str) -> Any:
    """Return the `result` of GET /ips; raises NoAnswerError."""
    # Only here: it takes some 0.4 s, and most uses find a fresh copy.
    try:
        import cloudflare
        import httpx
    except ImportError as error:
        raise NoAnswerError(
            f"Python's package {error.name} is missing beside Ansible; scripts/setup python installs it"
        ) from error

    client = cloudflare.Cloudflare(
        base_url=api_base_url, max_retries=TRIES - 1, timeout=httpx.Timeout(ANSWER_SECONDS, connect=5.0)
    )
    # The list is public: whatever credentials the environment holds stay here.
    client.api_token = client.api_email = client.api_key = client.user_service_key = None
    try:
        answer = client.get(
            "/ips", cast_to=httpx.Response, options={"headers": {"Authorization": cloudflare.Omit()}}
        )
        content = json.loads(answer.text)
    except cloudflare.APIStatusError as error:
        raise NoAnswerError(f"it answers HTTP {error.status_code}") from error
    except cloudflare.APIConnectionError as error:
        raise NoAnswerError(f"it can't be reached ({error.__cause__ or error})") from error
    except ValueError as error:
        raise NoAnswerError("it answers, but not with JSON") from error
    if not isinstance(content, dict) or content.get("success") is not True:
        raise NoAnswerError("its answer says no success")
    return content.get("result")


def read(path: Path) -> tuple[dict[str, Any] | None, float]:
    """Return the copy and its age in seconds; None where there is no usable one."""
    try:
        return check(json.loads(path.read_text())), time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        # Gone, cut short or edited into nonsense: the API is asked as if it had never been there.
        return None, 0


def write(path: Path, ranges: dict[str, Any]) -> None:
    """Replace the copy, whole or not at all: other processes of the run read it. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(ranges, indent=2) + "\n")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def listed(ranges: dict[str, Any]) -> list[str]:
    """Return the networks as one list, IPv4 before IPv6."""
    return [*ranges["ipv4_cidrs"], *ranges["ipv6_cidrs"]]


def ranges(api_base_url: str, path: Path, max_age: float, warn: Any = lambda sentence: None) -> list[str]:
    """Return the networks, from the copy at `path` where it is younger than `max_age` seconds.

    Calls `warn` with a sentence when an old copy is used. Raises ValueError with a sentence when there is
    neither an answer nor a copy or when the answer must not be used, and OSError when the copy can't be kept.
    """
    copy, age = read(path)
    if copy and 0 <= age < max_age:
        return listed(copy)
    try:
        result = ask(api_base_url)
    except NoAnswerError as error:
        if copy is None:
            raise ValueError(
                f"Cloudflare's address ranges are not known: {api_base_url}/ips gives no list, because "
                f"{error}, and {path} holds no copy. Let the control node reach the API."
            ) from error
        warn(
            f"Cloudflare's address ranges are taken from {path}, a list that has been the same since "
            f"{copy['day']}: {api_base_url}/ips gives none, because {error}."
        )
        retry = time.time() - max_age + PAUSE_SECONDS
        if max_age > PAUSE_SECONDS:
            os.utime(path, (retry, retry))
        return listed(copy)
    try:
        answer = check(result)
    except ValueError as error:
        raise ValueError(
            f"{api_base_url}/ips gives a list that must not be used: {error}. Correct "
            "api_base_url, or look for who changes answers on the way; nothing was taken from it."
        ) from error
    if copy is None or answer["etag"] != copy["etag"] or listed(answer) != listed(copy):
        write(path, answer | {"day": time.strftime("%F")})
    else:
        os.utime(path)
    return listed(answer)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the networks; raises AnsibleLookupError with a sentence."""
        self.set_options(var_options=variables, direct=kwargs)
        path = Path(self.get_option("cache_file"))
        try:
            return [
                ranges(self.get_option("api_base_url"), path, self.get_option("max_age"), Display().warning)
            ]
        except ValueError as error:
            raise AnsibleLookupError(str(error)) from None
        except OSError as error:
            raise AnsibleLookupError(
                f"cache_file is '{path}', which can't be written ({error.strerror}); give a file in a folder "
                "that exists."
            ) from error
