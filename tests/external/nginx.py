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

_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""Where Debian's package libnginx-mod-stream puts it."""

_CONFIG = """
{modules}
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
    {upstreams}
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

    def refused(self) -> int:
        """How often a service behind it was not there."""
        return (self._folder / "error.log").read_text().count("connect() failed")

    def refuses_more_than(self, times: int) -> bool:
        """Whether it has happened more often than `times`."""
        return self.refused() > times

    def reload(self) -> None:
        """Lets new workers take over, as after a change of the configuration."""
        before = self.workers()
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: self.workers() - before, "new workers", timeout=30)


@contextmanager
def nginx(
    folder: Path, *servers: str, ports: Sequence[int] = (), upstreams: str = "", streams: Sequence[str] = ()
) -> Iterator[Nginx]:
    """Runs nginx with a server for each of `servers`, given without `listen`, on free ports or these.

    `upstreams` are the blocks that they name. After the servers come `streams`, addresses to which connections are
    passed on as they are.
    """
    assert NGINX is not None, "nginx is needed; `make test-nginx` installs it"
    ports = ports or [_free_port() for _ in (*servers, *streams)]
    blocks = []
    for server, port in zip(servers, ports, strict=False):
        tls = " ssl" if server.startswith("ssl_certificate") else ""
        blocks.append(f"server {{ listen 127.0.0.1:{port} http2{tls}; {server} }}")
    passing = [
        f"server {{ listen 127.0.0.1:{port}; proxy_pass {stream}; }}"
        for stream, port in zip(streams, ports[len(servers) :], strict=True)
    ]
    modules = f"load_module {_STREAM};" if streams else ""
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    text = _CONFIG.format(folder=folder, user=user, upstreams=upstreams, servers="\n".join(blocks), modules=modules)
    config.write_text(text + (f"stream {{ {' '.join(passing)} }}" if streams else ""))
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
