"""Connects to each [address, port] of a JSON list at once; prints those that accept, as such a list."""

import json
import socket
import sys
import threading

accepted = []


def connect(address: str, port: int) -> None:
    try:
        socket.create_connection((address, port), 3).close()
        accepted.append([address, port])
    except OSError:
        pass


threads = [threading.Thread(target=connect, args=target) for target in json.loads(sys.argv[1])]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(sorted(accepted)))
