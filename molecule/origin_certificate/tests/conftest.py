"""Fixtures of the origin's and the edge's certificate: requests over every path, and what nginx presents."""

import contextlib
import os
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from testinfra.host import Host

from tests.kit.playbook import Run, run_playbook
from tests.kit.testbed import NAME, SITE


@pytest.fixture(scope="session")
def state() -> Path:
    """The folder in which Molecule's create keeps the token and the edge's certificate authority."""
    return Path(os.environ["TESTBED_STATE_DIR"])


@pytest.fixture(scope="session", autouse=True)
def _api(upstream: None) -> None:
    """Every request needs an api."""


@pytest.fixture(scope="session")
def converge() -> Callable[..., Run]:
    """Return converge(*options, **variables), which runs the scenario's playbook again."""

    def call(*options: str, **variables: object) -> Run:
        run = run_playbook("molecule/origin_certificate/converge.yml", *options, **variables)
        assert run.returncode == 0, run.stdout + run.stderr
        return run

    return call


class EdgeClient:
    """Requests the page through the edge."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def status(self) -> int:
        return self._http.get("/").status_code

    @contextlib.contextmanager
    def no_failed_request(self) -> Iterator[None]:
        """Send requests throughout the block; fail after it unless each was answered with 200."""
        statuses: Counter[int | str] = Counter()
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(0.04):
                try:
                    statuses[self.status()] += 1
                except httpx.HTTPError as error:
                    statuses[type(error).__name__] += 1

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert statuses.keys() == {200}, statuses
        assert statuses[200] > 30


@pytest.fixture
def edge(state: Path, localhost_names: None) -> Iterator[EdgeClient]:
    tls = ssl.create_default_context(cafile=state / "edge-ca.pem")
    with httpx.Client(base_url=SITE, verify=tls, timeout=10) as http:
        yield EdgeClient(http)


@pytest.fixture(scope="session")
def status_past_the_edge(state: Path) -> Callable[..., int]:
    """Return status_past_the_edge(port=443, certificate=None), a request to the origin's own address."""
    lines = (state / "env").read_text().splitlines()
    address = dict(line.split("=", 1) for line in lines)["ORIGIN_ADDRESS"]

    def call(port: int = 443, certificate: Path | None = None) -> int:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if certificate:
            tls.load_cert_chain(certificate)
        url = f"{'https' if port == 443 else 'http'}://{address}/"
        with httpx.Client(verify=tls, headers={"Host": NAME}, timeout=10) as http:
            return http.get(url, extensions={"sni_hostname": NAME}).status_code

    return call


@pytest.fixture(scope="session")
def presented(host: Host) -> Callable[[], x509.Certificate]:
    """Return presented(), the certificate that nginx presents."""

    def call() -> x509.Certificate:
        output = host.check_output(
            f"openssl s_client -connect 127.0.0.1:443 -servername {NAME} </dev/null 2>/dev/null"
        )
        found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", output, re.DOTALL)
        assert found, output
        return x509.load_pem_x509_certificate(found[0].encode())

    return call
