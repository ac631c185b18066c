from tests.faults.kit import SAVED, Fault, shell, start_stack, stop

SOCKET = "/opt/screen-flow/run/api.sock"


def without_heartbeat(site):
    override = 'services: {api: {environment: {APP_HEARTBEAT_SECONDS: "99"}}}'
    site.sh(f"cat >{SAVED}/fault.yaml", text=override)
    site.compose(f"-f compose.yaml -f {SAVED}/fault.yaml up --detach api")


FAULTS = [
    Fault(
        "api stopped", "api_stopped", "api is stopped",
        inject=stop("api"), heal=start_stack, touches={"api", "edge way"},
    ),
    Fault(
        "api hung", "api_hangs", "hangs",
        inject=shell("pkill -STOP -f 'app[.]main'"),
        heal=shell("pkill -CONT -f 'app[.]main'"),
        touches={"api", "edge way"},
    ),
    Fault(
        "api without heartbeat in time", "no_heartbeat", "after 99 s",
        inject=without_heartbeat, heal=start_stack, touches={"api"},
    ),
    Fault(
        "upstream dead", "upstream_dead", "No such file",
        inject=shell(f"mv {SOCKET} {SOCKET}.away"),
        heal=shell(f"mv {SOCKET}.away {SOCKET}"),
        touches={"upstream", "api", "edge way"},
    ),
]  # fmt: skip
