"""The edge: terminates TLS for the zone's names and proxies HTTP/1.1 and WebSockets, as configured.

Not emulated: HTTP/2 and HTTP/3 towards visitors (only http/1.1 is offered), Brotli and Zstandard, and the
settings that only rewrite pages or block bots. Each request opens its own connection to the origin.
"""

from emulator.edge.server import Edge, Ports, Timing

__all__ = ["Edge", "Ports", "Timing"]
