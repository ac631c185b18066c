from tests.faults.kit import Fault, edit_in, start_stack, stop

EVENTS = "opt/screen-flow/app/events.py"

FAULTS = [
    Fault(
        "worker stopped", "worker_stopped", "worker is stopped",
        inject=stop("worker"), heal=start_stack, touches={"worker"},
    ),
    Fault(
        "events published to another channel", "other_channel", "user:site-check:event,",
        inject=edit_in("worker", EVENTS, 's/:events"/:event"/'),
        heal=edit_in("worker", EVENTS, 's/:event"/:events"/'),
        touches={"worker", "redis"},
    ),
]  # fmt: skip
