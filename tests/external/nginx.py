"""A real nginx, as a child of the test, on free ports of the loopback interface."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import eventually

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

_CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
worker_processes 2;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


class Nginx:
    """What runs, and how to steer it."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", ports: Sequence[int]) -> None:
        self._folder = folder
        self._process = process
        self.targets = [f"127.0.0.1:{port}" for port in ports]

    def workers(self) -> set[str]:
        """The ids of the worker processes."""
        return set(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split())

    def reload(self) -> None:
        """Lets new workers take over, as after a change of the configuration."""
        before = self.workers()
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: self.workers() - before, "new workers", timeout=30)


@contextmanager
def nginx(folder: Path, *servers: str, ports: Sequence[int] = ()) -> Iterator[Nginx]:
    """Runs nginx with a server for each of `servers`, given without `listen`, on free ports or these."""
    assert NGINX is not None, "nginx is needed; `make test-nginx` installs it"
    ports = ports or [_free_port() for _ in servers]
    blocks = []
    for server, port in zip(servers, ports, strict=True):
        tls = " ssl" if "ssl_certificate" in server else ""
        blocks.append(f"server {{ listen 127.0.0.1:{port} http2{tls}; {server} }}")
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, user=user, servers="\n".join(blocks)))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")])
    try:
        running = Nginx(folder, process, ports)
        for port in ports:
            eventually(lambda port=port: _listens(port), (folder / "error.log").read_text, timeout=30)  # type: ignore[misc]
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
