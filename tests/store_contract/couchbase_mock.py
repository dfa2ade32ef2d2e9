"""CouchbaseMock, an independent implementation in Java: https://github.com/couchbase/CouchbaseMock.

`make test-couchbasemock` names its jar by COUCHBASEMOCK.
"""

import atexit
import functools
import json
import os
import socket
import subprocess
from typing import Any


class CouchbaseMock:
    """One node with one bucket, `default`; its user is `default` too, with any password."""

    def __init__(self, jar: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(60)
            port = listener.getsockname()[1]
            command = ["java", "-jar", jar, "--port=0", "--nodes=1", "--buckets=default:", "--replicas=0"]
            # It ends by itself when the connection to this port does.
            self._process = subprocess.Popen([*command, f"--harakiri-monitor=127.0.0.1:{port}"])
            connection, _ = listener.accept()
        self._control = connection.makefile("rwb")
        while self._control.read(1) != b"\0":  # before it stands the port of its web interface
            pass
        # Without it the SDK finds no configuration of the cluster: error 1004.
        self._command("set_cccp", enabled=True)
        (kv_port,) = self._command("get_mcports")["payload"]
        self.host = f"127.0.0.1:{kv_port}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _command(self, name: str, **payload: object) -> Any:
        self._control.write(json.dumps({"command": name, "payload": payload}).encode() + b"\n")
        self._control.flush()
        response = json.loads(self._control.readline())
        assert response["status"] == "ok", response
        return response


@functools.cache
def shared_mock() -> CouchbaseMock:
    """The one that all tests of a run share, because it takes its time to start."""
    mock = CouchbaseMock(os.environ["COUCHBASEMOCK"])
    atexit.register(mock.close)
    return mock
