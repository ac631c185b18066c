"""Serve the repository over TLS."""

import functools
import http.server
import ssl

handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/srv")
server = http.server.ThreadingHTTPServer(("", 443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/tls.crt", "/srv/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
