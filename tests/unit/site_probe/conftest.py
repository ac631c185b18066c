"""The module site_probe against real sockets: servers and certificates for its tests."""

import contextlib
import json
import socket
import threading
import time

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import site_probe

from tests.unit.site_probe.servers import Authority, serve_app


@pytest.fixture
def run(capsys):
    """Run the module; return its output, with the duration in `seconds`."""

    def call(*targets, check=False, **arguments):
        arguments = {"targets": [{"name": "api", **target} for target in targets], **arguments}
        start = time.monotonic()
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            site_probe.main()
        return {**json.loads(capsys.readouterr().out), "seconds": time.monotonic() - start}

    return call


@pytest.fixture
def probe(run):
    """Probe one target; return its result."""

    def call(**target):
        output = run(target)
        assert not output.get("failed"), output["msg"]
        assert not output["changed"]
        (result,) = output["results"]
        assert output["ok"] == result["ok"]
        assert (output["msg"] == "") == result["ok"], "exactly a failed target has a message"
        return result

    return call


@pytest.fixture
def listen():
    """Serve each connection to a free port by the given function; return the port."""
    with contextlib.ExitStack() as stack:

        def call(handle, context=None):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve(connection):
                with contextlib.suppress(OSError), contextlib.ExitStack() as inner:
                    inner.enter_context(connection)
                    if context:
                        connection = inner.enter_context(context.wrap_socket(connection, server_side=True))
                    handle(connection)

            def accept():
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            # A closed socket does not wake a thread in accept(); a shut one does.
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            return server.getsockname()[1]

        yield call


@pytest.fixture(scope="module")
def api():
    with serve_app() as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def refused():
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))
