"""Sends one request several times, as a JSON object in the first argument describes it.

Prints [[status, headers, body] of the last response, [the status of each]]; fails where one is not answered.
"""

import http.client
import json
import socket
import ssl
import sys

request = json.loads(sys.argv[1])
context = ssl._create_unverified_context()
if request["certificate"]:
    context.load_cert_chain(request["certificate"])
statuses = []
for _ in range(request["times"]):
    connection = http.client.HTTPConnection(request["headers"]["Host"], request["port"])
    connection.sock = socket.create_connection((request["to"], request["port"]), 5, (request["source"], 0))
    if request["port"] == 443:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=request["name"])
    content = b"x" * request["size"] or None
    connection.request(
        "POST" if content else "GET", request["path"], body=content, headers=request["headers"]
    )
    response = connection.getresponse()
    statuses.append(response.status)
    last = [response.status, dict(response.getheaders()), response.read().decode()]
print(json.dumps([last, statuses]))
