"""Accepts WebSockets on /run/endless.sock and sends without end, as fast as nginx reads."""

import contextlib
import socket
from pathlib import Path

PATH = Path("/run/endless.sock")
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(PATH))
PATH.chmod(0o666)
listener.listen()
while True:
    peer, _ = listener.accept()
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            peer.sendall(bytes(65536))
    peer.close()
