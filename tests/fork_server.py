"""Our programs as processes that begin where their imports have ended, for a tenth of the CPU.

A fork server imports a program once, and forks for each run of it. So each run is a process with its own streams,
environment, signals and exit status, and ends as every process does. What Python, the locale and gRPC take from the
environment before that, it can't be given: a run that sets any of it is started the usual way.
"""

import atexit
import functools
import gc
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from userprofile_server.__main__ import GRPC_EXPERIMENTS

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
EARLY = ("GRPC_", "LANG", "LC_", "LD_", "MALLOC_", "PYCBC_", "PYTHON")
"""What is read before a program's own first line, or while it imports."""
_IMPORTS = {
    "client": (["userprofile.cli"], {"GRPC_VERBOSITY": "NONE"}),
    "server": (
        ["userprofile_server.cli", "userprofile_server.serve", "userprofile_server.stores.couchbase.store"],
        {"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS},
    ),
}
"""What the fork servers import, and what is set before that.

A program imports Couchbase's SDK when it opens a cluster, for as much CPU as all its other imports.
"""
PROGRAMS = {
    "userprofile": ("client", "userprofile_command"),
    "userprofile-server": ("server", "userprofile_server.__main__"),
    "fake-supervisor": ("server", "tests.fake_supervisor"),
}
"""For each: the fork server, and the module of its main()."""
SERVERS = {
    "userprofile_server.processes": "userprofile_server.processes.child",
    "import tests.fake_server as fake; fake.main()": "tests.fake_server",
}
"""The same of the processes that supervisors start, by the last word of the command."""
DEFAULTS = {"USERPROFILE_SERVER_DRAIN_DELAY": "0", "USERPROFILE_SERVER_LOG_FORMAT": "text"}
"""What programs get in their environment."""

_STATUS = struct.Struct("!i")
_Popen = subprocess.Popen


def start(
    program: str, args: Sequence[object], env: Mapping[str, str], *, fork: bool = True
) -> "subprocess.Popen[bytes] | Forked":
    """Starts a program of ours, with pipes for its streams, and `env` on top of this process's environment.

    Its drain begins at once, and its log is text, unless `env` says otherwise.
    """
    environment = {**os.environ, **DEFAULTS, **env}
    if fork and program in PROGRAMS and _early(environment) == _early(dict(os.environ)):
        name, main = PROGRAMS[program]
        return _fork_server(name).start(main, [str(BIN / program), *map(str, args)], environment)
    pipe = subprocess.PIPE
    return subprocess.Popen([BIN / program, *map(str, args)], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(EARLY)}


class Forked:
    """A process, with what subprocess.Popen has of it."""

    def __init__(self, status: socket.socket, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._status = status
        self.pid = self._receive(60)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(self._receive(timeout))
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # ended since the poll
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """Feeds it, reads all that it prints, and waits for its end."""
        output: dict[IO[bytes], bytes] = {}

        def feed() -> None:
            with suppress(BrokenPipeError), self.stdin as stream:
                stream.write(input or b"")

        def read(stream: IO[bytes]) -> None:
            with stream:
                output[stream] = stream.read()

        threads = [threading.Thread(target=feed)]
        threads += [threading.Thread(target=read, args=[stream]) for stream in (self.stdout, self.stderr)]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        return output[self.stdout], output[self.stderr]

    def _receive(self, timeout: float | None) -> int:
        self._status.settimeout(timeout)
        try:
            return int(_STATUS.unpack(self._status.recv(_STATUS.size))[0])
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired("a forked program", timeout or 0) from None


class _ForkServer:
    """The process that forks; it ends with this one."""

    def __init__(self, name: str) -> None:
        self._requests, theirs = socket.socketpair()
        code = f"from tests.fork_server import serve; serve({name!r}, {theirs.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT, pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        atexit.register(self._close)

    def start(self, main: str, args: list[str], environment: Mapping[str, str]) -> Forked:
        status, theirs = socket.socketpair()
        pipes = [os.pipe() for _ in range(3)]
        (stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr) = pipes
        socket.send_fds(self._requests, [b"x"], [theirs.fileno(), stdin, stdout, stderr])
        theirs.close()
        for end in (stdin, stdout, stderr):
            os.close(end)
        status.sendall(json.dumps([main, args, dict(environment), str(Path.cwd())]).encode() + b"\n")
        return Forked(status, os.fdopen(our_stdin, "wb"), os.fdopen(our_stdout, "rb"), os.fdopen(our_stderr, "rb"))

    def _close(self) -> None:
        self._requests.close()
        self._process.communicate()


@functools.cache
def _fork_server(name: str) -> _ForkServer:
    return _ForkServer(name)


def serve(name: str, requests: int) -> None:
    """Forks on each request until the requesting end is closed. Returns in each process after its program."""
    imports, environment = _IMPORTS[name]
    os.environ.update(environment)
    for module in (*imports, *(main for server, main in PROGRAMS.values() if server == name)):
        import_module(module)
    gc.freeze()  # what is imported is never garbage, and whoever looks at it has to copy it first
    del sys.path[0]  # the folder of these tests, which a program hasn't
    with socket.socket(fileno=requests) as requested:
        while True:
            message, descriptors, *_ = socket.recv_fds(requested, 1, 4)
            if not message:
                return
            if os.fork() == 0:
                break
            for descriptor in descriptors:
                os.close(descriptor)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
    # This is the process's parent, which reports its exit status.
    status = socket.socket(fileno=descriptors[0])
    with status.makefile("rb") as stream:
        main, sys.argv[:], environment, folder = json.loads(stream.readline())
    pid = os.fork()
    if pid != 0:
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        status.sendall(_STATUS.pack(pid))
        status.sendall(_STATUS.pack(os.waitpid(pid, 0)[1]))
        os._exit(0)
    status.close()
    for number, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    vars(subprocess)["Popen"] = _popen
    import_module(main).main()


def _popen(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """What a program takes for subprocess.Popen: a supervisor's processes begin where their imports have ended, too."""
    if command[-1] not in SERVERS:
        return _Popen(command, **options)
    process = object.__new__(_Popen)
    process.returncode = None
    process.pid = os.fork()
    if process.pid == 0:
        try:
            _serve(SERVERS[command[-1]], options["stdin"])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return process


def _serve(main: str, channel: int) -> None:
    """Is a server process, with nothing of its supervisor that it wouldn't have after exec."""
    os.setsid()
    os.dup2(channel, 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.set_wakeup_fd(-1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    vars(import_module("userprofile_server.rpc.stages.request_id"))["_PROCESS"] = secrets.token_hex(8)
    import_module(main).main()
