"""nginx before a site, with the role's two locations: paths and TLS as in production."""

import shutil
from pathlib import Path

import httpx

from tests.app.provider import Authority
from tests.kit.app import Process, free_port, wait_until


class Proxy:
    """nginx on two ports, one of them with TLS. It passes requests to the api on `port`."""

    def __init__(self, folder: Path, authority: Authority, port: int) -> None:
        self.http, self.https = free_port(), free_port()
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        assert program, "scripts/setup tools installs it"
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        api = f"http://127.0.0.1:{port}"
        (folder / "nginx.conf").write_text(f"""
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen 127.0.0.1:{self.http};
        listen 127.0.0.1:{self.https} ssl;
        ssl_certificate {authority.certificate};
        ssl_certificate_key {authority.key};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        location / {{
            proxy_pass {api};
            add_header X-Location page always;
        }}
        location /api/v1/cv-processing/ws/ {{
            proxy_pass {api};
            add_header X-Location socket always;
        }}
    }}
}}
""")
        self.process = Process(program, "-c", str(folder / "nginx.conf"), log=folder / "nginx.log")

    def start(self) -> None:
        self.process.start()
        wait_until("nginx answers", self._ready)

    def _ready(self) -> bool:
        assert self.process.child and self.process.child.poll() is None, self.process.log()
        try:
            return httpx.get(f"http://127.0.0.1:{self.http}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.process.close()
