"""Answers every request on port 8000 with the request's own headers: what nginx forwards can be read outside.

The query adds headers to the response: ?Name=value&Other=value.
"""

import http.server
import json


class Echo(http.server.BaseHTTPRequestHandler):
    """GET and POST alike."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"version": self.request_version, **self.headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for header in filter(None, self.path.partition("?")[2].split("&")):
            self.send_header(*header.split("=", 1))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Echo).serve_forever()
