"""Faults of the page that the browser runs."""

from __future__ import annotations

from ..engine import Evidence, rule


@rule("ssl_error", "Derive the socket's scheme from the page's own URL, as frontend/utils/websocket.ts does.")
def page_opens_ws(e: Evidence) -> str | None:
    """A page loaded over https may not open ws://; browsers block it."""
    found, site = e["edge.page.insecure"], e.expect("site_url")
    if not found or not str(site).startswith("https:"):
        return None
    return f"the page opens a socket without TLS: {found[0]}."
