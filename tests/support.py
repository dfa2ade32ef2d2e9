"""What several tests need: documents, calls by the bare stub, processes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.canary import CANARY, look
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc
from userprofile_server.errors import DomainError, StoreError, UserNotFoundError
from userprofile_server.models import User
from userprofile_server.settings import StoreSettings
from userprofile_server.stores import Document, Outcome, UserStore, open_store

BIN = Path(sys.executable).parent
GET_USER = "/userprofile.v1.UserProfileService/GetUser"


def document(username: str, /, **fields: object) -> bytes:
    """A document as the tutorial writes it, with the canary as its hash."""
    stored = {"username": username, "type": "userprofile", "hashed_password": CANARY, **fields}
    return json.dumps(stored, ensure_ascii=False).encode()


def open_url(url: str) -> UserStore:
    """Opens a store by its URL alone, to write to it too, and makes it if need be."""
    return open_store(StoreSettings(store=url), writable=True)


def documents_in(store_url: str, users: Mapping[str, Mapping[str, object]]) -> None:
    """Puts a document for each user into the store."""
    store = open_url(store_url)
    store.put([Document(name, document(name, **fields)) for name, fields in users.items()], timeout=5)
    store.close()


class GetUser:
    """GetUser by the bare stub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._stub = pb_grpc.UserProfileServiceStub(channel)

    def __call__(self, username: str, timeout: float = 10, **kwargs: Any) -> pb.User:
        return self._stub.GetUser(pb.GetUserRequest(username=username), timeout=timeout, **kwargs).user

    def future(self, username: str, **kwargs: Any) -> Any:
        """Begins a call."""
        return self._stub.GetUser.future(pb.GetUserRequest(username=username), **kwargs)

    def with_call(self, username: str, **kwargs: Any) -> tuple[pb.GetUserResponse, grpc.Call]:
        return self._stub.GetUser.with_call(pb.GetUserRequest(username=username), timeout=10, **kwargs)

    def raw(self, request: bytes) -> bytes:
        """Sends and returns bare bytes."""
        response: bytes = self.channel.unary_unary(GET_USER)(request, timeout=10)
        return response

    def error(self, username: str, **kwargs: Any) -> "CallError":
        """Makes a call that has to fail."""
        return CallError.of(lambda: self(username, **kwargs))


class CallError:
    """What a failed call told the caller."""

    def __init__(self, error: Any) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details()
        self.metadata = dict(error.trailing_metadata() or ())
        status = rpc_status.from_call(error)
        self.details = list(status.details) if status else []

    @classmethod
    def of(cls, call: Callable[[], object]) -> "CallError":
        try:
            call()
        except grpc.RpcError as error:
            return cls(error)
        raise AssertionError("the call succeeded")

    def detail(self, kind: Any) -> Any:
        """The one detail of this type, or None."""
        for packed in self.details:
            unpacked = kind()
            if packed.Unpack(unpacked):
                return unpacked
        return None

    @property
    def reason(self) -> str | None:
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info is None or info.domain == "userprofile"
        return info.reason if info else None

    @property
    def request_id(self) -> str | None:
        info = self.detail(error_details_pb2.RequestInfo)
        return info.request_id if info else None


class ScriptedStore:
    """A store of one user, whose reads do what a test says first."""

    def __init__(self, before_get: Callable[[float], None]) -> None:
        self._before_get = before_get

    def get(self, username: str, *, timeout: float) -> User:
        self._before_get(timeout)
        if username != "johndoe":
            raise UserNotFoundError
        return User(username="johndoe")

    def get_many(self, usernames: Sequence[str], *, timeout: float) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for username in usernames:
            try:
                outcomes[username] = self.get(username, timeout=timeout)
            except DomainError as error:
                outcomes[username] = error
        if all(isinstance(outcome, StoreError) for outcome in outcomes.values()):
            raise next(iter(outcomes.values()))
        return outcomes

    def put(self, documents: Any, *, timeout: float) -> int:
        raise NotImplementedError

    def probe(self, *, timeout: float) -> None:
        pass

    def close(self) -> None:
        pass


def run(program: str, *args: object, stdin: bytes | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program of ours to its end, and looks for the canary in what it prints."""
    done = subprocess.run(
        [BIN / program, *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | env,
    )
    look(f"stdout of {program}", done.stdout)
    look(f"stderr of {program}", done.stderr)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class ServerProcess:
    """`userprofile-server serve` as a process of its own, on a free port."""

    def __init__(self, store_url: str, *args: str, **env: str) -> None:
        self._process = subprocess.Popen(
            [BIN / "userprofile-server", "serve", "--store", store_url, "--listen", "127.0.0.1:0", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | env,
        )
        self.pid = self._process.pid
        self.stderr = ""
        self._reader = threading.Thread(target=self._read_stderr)
        self._reader.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), (line, self.stderr)
        self.address = line.removeprefix("listening on ").strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 20) -> int:
        status = self._process.wait(timeout)
        self._reader.join()
        look("stderr of a server process", self.stderr)
        return status

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stdout is not None
        look("stdout of a server process", self._process.stdout.read())
        self._process.stdout.close()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self.stderr += line


def eventually(condition: Callable[[], object], what: str | Callable[[], str], timeout: float = 10) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what() if callable(what) else what}"
        time.sleep(0.01)
