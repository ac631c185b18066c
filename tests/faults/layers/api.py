from tests.faults.kit import SAVED, Fault, shell, start_stack, stop

SOCKET = "/opt/screen-flow/run/api.sock"


def without_heartbeat(site):
    override = 'services: {api: {environment: {APP_HEARTBEAT_SECONDS: "99"}}}'
    site.sh(f"cat >{SAVED}/fault.yaml", text=override)
    site.compose(f"-f compose.yaml -f {SAVED}/fault.yaml up --detach api")


FAULTS = [
    Fault("api_stopped", "api is stopped", stop("api"), start_stack, {"api", "edge path"}),
    Fault(
        "api_hangs", "hangs",
        inject=shell("pkill -STOP -f 'app[.]main'"),
        revert=shell("pkill -CONT -f 'app[.]main'"),
        touches={"api", "edge path"},
    ),
    Fault("no_heartbeat", "after 99 s", without_heartbeat, start_stack, {"api"}),
    Fault(
        "upstream_dead", "No such file",
        inject=shell(f"mv {SOCKET} {SOCKET}.away"),
        revert=shell(f"mv {SOCKET}.away {SOCKET}"),
        touches={"upstream", "api", "edge path"},
    ),
]  # fmt: skip
