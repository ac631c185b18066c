from tests.faults.kit import ALIAS, KEY, PEM, RELOAD, SAVED, Fault, restore_nginx, shell

AUTHORITY = f"{SAVED}/authority"


def certificate(arguments, name=None, self_signed=False):
    """Return a step: another certificate for the same key, loaded.

    Signed by an authority by default: a self-signed one is a second fault where the zone is strict.
    """

    def run(site):
        host = name or site.host
        names = f"DNS:{host}" if name else f"DNS:{host},DNS:{ALIAS}"
        issuer = ""
        if not self_signed:
            issuer = f"-CA {AUTHORITY}.pem -CAkey {AUTHORITY}.key"
            site.sh(f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {AUTHORITY}.key -out {AUTHORITY}.pem "
                    f"-subj /CN=Authority 2>/dev/null")  # fmt: skip
        site.sh(f"openssl req -x509 -key {KEY} -subj /CN={host} -addext subjectAltName={names} "
                f"{issuer} {arguments} -out {PEM} 2>/dev/null && {RELOAD}")  # fmt: skip

    return run


FAULTS = [
    Fault(
        "certificate_expired", "expired",
        inject=certificate("-not_before 20240101000000Z -not_after 20250101000000Z"),
        revert=restore_nginx, touches={"certificate"},
    ),
    Fault(
        "certificate_other_name", "other.example.com",
        inject=certificate("-days 100", "other.example.com"),
        revert=restore_nginx, touches={"certificate"},
    ),
    Fault(
        "key_mismatch", "does not belong",
        inject=shell(f"openssl ecparam -genkey -name prime256v1 -noout -out {KEY}"),
        revert=restore_nginx, touches={"certificate", "nginx", "map", "location", "upstream"},
    ),
]  # fmt: skip
