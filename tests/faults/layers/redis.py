from tests.faults.kit import Fault, start_stack, stop

# Redis's operator may not configure it, but may grant itself the right to.
ALLOW = "ACL SETUSER operator +config\n"


def redis_cli(commands):
    return lambda site: site.redis_cli(commands)


FAULTS = [
    Fault("redis_stopped", "redis is stopped", stop("redis"), start_stack, {"redis"}),
    Fault(
        "redis_full", "full",
        inject=redis_cli(ALLOW + "CONFIG SET maxmemory 900kb\n"),
        revert=lambda site: site.redis_cli(f"CONFIG SET maxmemory {site.saved['maxmemory']}\nACL LOAD\n"),
        touches={"redis"},
    ),
    Fault(
        "redis_password", "refuses the password",
        inject=redis_cli(
            "ACL SETUSER api resetpass >wrong\nACL SETUSER worker resetpass >wrong\n"
            "CLIENT KILL USER api\nCLIENT KILL USER worker\n"
        ),
        revert=redis_cli("ACL LOAD\n"),
        touches={"redis", "api", "worker"},
    ),
]  # fmt: skip
