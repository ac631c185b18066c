"""Sends its first argument to port 80, reads nothing for 10 s, then prints how many bytes there are."""

import socket
import sys
import time

connection = socket.create_connection(("127.0.0.1", 80))
connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
connection.sendall(sys.argv[1].encode())
time.sleep(10)
connection.settimeout(20)
size = 0
while size < 64 << 20 and (data := connection.recv(1 << 20)):
    size += len(data)
print(size)
