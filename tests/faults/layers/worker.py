from tests.faults.kit import Fault, both, edit_in, shell, start_stack, stop

EVENTS = "opt/screen-flow/app/events.py"

# A running worker has read the file already.
RESTART = shell(
    "cd /opt/screen-flow && docker compose restart worker && docker compose up --detach --wait worker"
)

FAULTS = [
    Fault("worker_stopped", "worker is stopped", stop("worker"), start_stack, {"worker"}),
    Fault("extractor_down", "extractor is stopped", stop("extractor"), start_stack, {"worker"}),
    Fault(
        "other_channel", "user:site-check:event,",
        inject=both(edit_in("worker", EVENTS, 's/:events"/:event"/'), RESTART),
        revert=both(edit_in("worker", EVENTS, 's/:event"/:events"/'), RESTART),
        touches={"worker", "redis"},
    ),
]  # fmt: skip
