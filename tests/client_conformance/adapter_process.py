"""A running adapter of a language's client, which README.md describes, and what is wrong with it if it breaks off."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.canary import look

_MAX_LINE = 16 * 1024 * 1024
_MAX_STDERR = 10_000
_CHUNK = 65_536


class AdapterError(AssertionError):
    """An adapter that doesn't keep to the protocol: it has ended, hangs, or prints something else."""


class AdapterProcess:
    """Sends requests to an adapter. One that breaks the protocol is ended, and all further calls fail at once."""

    response_seconds = 90.0
    """More than a call may take, on a busy machine."""

    def __init__(self, command: Sequence[str], folder: Path, target: str) -> None:
        self._unread = bytearray()
        self._stderr = b""
        self._broken: str | None = None
        self._process = subprocess.Popen(
            [*command, target],
            cwd=folder,
            env=os.environ | {"PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        # Whoever waits for a response reads both, so that an adapter is never stuck with what it prints.
        self._output = selectors.DefaultSelector()
        self._output.register(self._stdout, selectors.EVENT_READ)
        self._output.register(self._errors, selectors.EVENT_READ)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request, and returns the response."""
        self._send({method: arguments})
        line = self._receive()
        look("response of an adapter", line)
        try:
            response = json.loads(line)
        except ValueError as error:  # UnicodeDecodeError too
            self._fail(f"wrote what is no JSON in UTF-8 ({error}): {line[:500]!r}")
        if not isinstance(response, dict):
            self._fail(f"wrote what is no JSON object: {line[:500]!r}")
        return response

    def refuse(self, method: str, **arguments: Any) -> tuple[int, str]:
        """Sends an invalid request; returns the exit status and what stands on stderr."""
        self._send({method: arguments})
        return self.end()

    def end(self) -> tuple[int, str]:
        """Ends the input; returns the exit status and what stands on stderr."""
        assert self._process.stdin
        self._process.stdin.close()
        deadline = time.monotonic() + self.response_seconds
        while self._read(deadline):
            if self._unread:
                self._fail(f"wrote a line without a request: {bytes(self._unread[:500])!r}")
        status = self._wait(deadline)
        self.kill()
        return status, self._printed()

    def kill(self) -> None:
        """Ends it, if it runs."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        for stream in (self._process.stdin, self._stdout, self._errors):
            if stream:
                stream.close()

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    @property
    def _errors(self) -> Any:
        return self._process.stderr

    def _send(self, request: dict[str, Any]) -> None:
        if self._broken is not None:
            raise AdapterError(f"in an earlier case, {self._broken}")
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has ended, as is seen next

    def _receive(self) -> bytes:
        """Returns the next line."""
        deadline = time.monotonic() + self.response_seconds
        while b"\n" not in self._unread:
            if len(self._unread) > _MAX_LINE:
                self._fail(f"wrote a line without end: {bytes(self._unread[:500])!r}")
            if not self._read(deadline):
                begun = f" after {bytes(self._unread[:500])!r}" if self._unread else ""
                self._fail(f"ended without a response{begun}, with status {self._wait(deadline)}")
        line, _, rest = bytes(self._unread).partition(b"\n")
        if rest:
            self._fail(f"wrote more than one line: {line[:500]!r} and {rest[:500]!r}")
        self._unread.clear()
        return line

    def _read(self, deadline: float) -> bool:
        """Waits for some output. Returns False at the end of both streams."""
        streams = self._output.select(max(deadline - time.monotonic(), 0))
        if time.monotonic() >= deadline:
            self._fail(f"did not respond, or end, within {self.response_seconds:g} s")
        for key, _ in streams:
            chunk = os.read(key.fd, _CHUNK)
            if not chunk:
                self._output.unregister(key.fileobj)
            elif key.fileobj is self._stdout:
                self._unread += chunk
            else:
                self._stderr = (self._stderr + chunk)[-_MAX_STDERR:]
        return bool(self._output.get_map())

    def _wait(self, deadline: float) -> int:
        try:
            return self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._fail("closed its output, and did not end")

    def _printed(self) -> str:
        text = self._stderr.decode(errors="replace")
        look("stderr of an adapter", text)
        return text

    def _fail(self, what: str) -> NoReturn:
        self.kill()
        self._broken = f"the adapter {what}; on stderr: {self._printed() or 'nothing'}"
        raise AdapterError(self._broken)
