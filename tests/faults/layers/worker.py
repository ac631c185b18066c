from tests.faults.kit import Fault, edit_in, start_stack, stop

EVENTS = "opt/screen-flow/app/events.py"

FAULTS = [
    Fault("worker_stopped", "worker is stopped", stop("worker"), start_stack, {"worker"}),
    Fault("extractor_down", "extractor is stopped", stop("extractor"), start_stack, {"worker"}),
    Fault(
        "other_channel", "user:site-check:event,",
        inject=edit_in("worker", EVENTS, 's/:events"/:event"/'),
        revert=edit_in("worker", EVENTS, 's/:event"/:events"/'),
        touches={"worker", "redis"},
    ),
]  # fmt: skip
