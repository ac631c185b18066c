"""Documentation of the options of modules that judge the evidence document: `DOCUMENT_SPEC`."""


class ModuleDocFragment:
    """Ansible's entry point."""

    DOCUMENTATION = r"""
options:
  site:
    description: The site's URL.
    type: str
    required: true
  expected:
    description: What the inventory sets for the site; see C(roles/site_check/vars/main.yml).
    type: dict
    required: true
  server:
    description: Evidence of the server, from M(screen_flow.live.site_evidence_server); empty without any.
    type: dict
    required: true
  edge:
    description: Evidence from outside, from M(screen_flow.live.site_evidence_edge).
    type: dict
    required: true
attributes:
  idempotent:
    description: Whether a second run with the same options changes nothing.
    support: full
    details: Files are a record of the run, not a part of the site; writing them does not count as a change.
"""
