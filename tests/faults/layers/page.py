from tests.faults.kit import Fault, edit_in

PAGE = "srv/frontend/index.html"
SCRIPT = '<script>new WebSocket("ws://screen-flow.localhost/")</script>'

FAULTS = [
    Fault(
        "page_opens_ws", "ws://screen-flow",
        inject=edit_in("api", PAGE, f"s|</body>|{SCRIPT}</body>|"),
        revert=edit_in("api", PAGE, "s|<script>new WebSocket[^<]*</script>||"),
        touches={"api", "edge path", "nginx", "dns", "ssl", "setting", "page", "redis"},
    ),
]  # fmt: skip
