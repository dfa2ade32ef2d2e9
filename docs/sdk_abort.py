"""Shows how one malformed response of a node aborts a process that uses Couchbase's Python SDK (couchbase 4.6.3).

    python docs/sdk_abort.py [key|extras|framing|magic|features]

It acts as a node on loopback that responds to the SDK's first request with one malformed frame. The SDK's own thread
throws an exception that nothing catches, and the process gets SIGABRT: exit status 134 in a shell. If the SDK survives,
the program says so and exits with status 0.
"""

import socket
import struct
import sys
import threading
from datetime import timedelta

from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.exceptions import CouchbaseException
from couchbase.options import ClusterOptions, ClusterTimeoutOptions

# magic, key length, extras length, body: the lengths are those of parts of the body
RESPONSES = {
    "key": (0x81, 1, 0, b""),  # a key longer than the body
    "extras": (0x81, 0, 1, b""),  # extras longer than the body
    "framing": (0x18, 0x0300, 0, b""),  # framing extras longer than the body, in a flexible response
    "magic": (0x99, 0, 0, b""),  # neither a response nor a request
    "features": (0x81, 0, 0, b"\0\0\0"),  # the list of features in the response to HELLO, with half a feature
}


def respond_to_first_request(listener: socket.socket, name: str) -> None:
    """Sends the malformed response."""
    magic, key_size, extras_size, body = RESPONSES[name]
    connection, _ = listener.accept()
    request = connection.recv(4096)
    opcode, opaque = request[1], request[12:16]
    header = struct.pack(">BBHBBHI4sQ", magic, opcode, key_size, extras_size, 0, 0, len(body), opaque, 0)
    connection.sendall(header + body)
    connection.recv(1)  # until the SDK has gone


with socket.create_server(("127.0.0.1", 0)) as listener:
    name = sys.argv[1] if len(sys.argv) > 1 else "key"
    threading.Thread(target=respond_to_first_request, args=(listener, name), daemon=True).start()
    timeouts = ClusterTimeoutOptions(bootstrap_timeout=timedelta(seconds=5))
    options = ClusterOptions(PasswordAuthenticator("username", "password"), timeout_options=timeouts)
    try:
        Cluster(f"couchbase://127.0.0.1:{listener.getsockname()[1]}", options)
    except CouchbaseException as error:
        sys.stdout.write(f"the SDK survived: {type(error).__name__}\n")
