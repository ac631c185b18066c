"""Keys and token appear nowhere but in their own files, also when everything is created again."""

import base64
import contextlib
import json
import os
import threading
import time
from pathlib import Path

CERTIFICATE = "/etc/ssl/certs/screen-flow-origin.pem"
KEY = "/etc/ssl/private/screen-flow-origin.key"
AUTHORITY = "/etc/ssl/certs/screen-flow-edge-authority.pem"
AUTHORITY_KEY = "/etc/ssl/private/screen-flow-edge-authority.key"


@contextlib.contextmanager
def private_keys_below(folder):
    """Read every file that appears below the folder, however briefly; yield the names of those with a key."""
    found, ended = set(), threading.Event()

    def watch():
        while not ended.wait(0.01):
            # A folder may be gone before it is listed, a file before it is read.
            for parent, _, names in os.walk(folder):
                for file in (Path(parent, name) for name in names):
                    with contextlib.suppress(OSError):
                        if file.is_file() and "PRIVATE KEY" in file.read_text(errors="replace"):
                            found.add(file.name)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def private_lines(host, path):
    """Return the lines of a PEM key without those of its public half, which is part of it."""
    lines = host.check_output(f"cat {path}").splitlines()[1:-1]
    public = "".join(host.check_output(f"openssl pkey -pubout -in {path}").splitlines()[1:-1])
    private = [line for line in lines if base64.b64decode(line) not in base64.b64decode(public)]
    assert private
    return private


def test_the_watch_finds_a_key_that_is_there_for_a_moment(tmp_path):
    with private_keys_below(tmp_path) as found:
        (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----")
        time.sleep(0.2)
        (tmp_path / "key").unlink()
    assert found == {"key"}


def test_lost_files_are_created_again_and_no_secret_shows(
    edge, host, control, converge, state, tmp_path, monkeypatch
):
    host.run_expect([0], f"rm {CERTIFICATE} {KEY} {AUTHORITY} {AUTHORITY_KEY}")
    control("DELETE", "journal")
    for name in ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with private_keys_below(tmp_path) as written, edge.no_failed_request():
        run = converge("-vvv", "--diff")
    assert written == set()
    token = (state / "token").read_text().strip()
    secrets = [line for path in (KEY, AUTHORITY_KEY) for line in private_lines(host, path)]
    journal = control.journal()
    output = run.stdout + run.stderr + json.dumps(journal)
    for secret in (token, "PRIVATE KEY", *secrets):
        assert secret not in output
    created = {entry["path"].rsplit("/", 1)[1] for entry in journal if entry["method"] == "POST"}
    assert created == {"certificates", "origin_tls_client_auth"}
