"""What several tests need: documents, calls by the bare stub, processes."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self, TypeVar

import click
import grpc
from click.testing import CliRunner
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_status import rpc_status

from tests.canary import CANARY, look
from tests.fork_server import start
from userprofile.environment import SERVER_PREFIX
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.errors import StoreError
from userprofile_server.settings import Settings
from userprofile_server.settings_base import Setting, settings_in
from userprofile_server.settings_cli import load, options
from userprofile_server.stores import open_store
from userprofile_server.stores.base import Document, DocumentStore
from userprofile_server.users.documents import document_key

T = TypeVar("T")

COUCHBASE_CREDENTIALS = {
    "USERPROFILE_SERVER_COUCHBASE_USERNAME": "username",
    "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password",
}
"""Of the test node, for a server's environment."""
WAIT = 60.0
"""Seconds within which whatever is waited for has come, on however busy a machine."""
TIME_TO_CONNECT = {"USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": str(WAIT)}
"""For the environment of what has to connect to a cluster, on however busy a machine."""
GET_USER = "/userprofile.v1.UserProfileService/GetUser"


def document(username: str, /, **fields: object) -> bytes:
    """A document as the tutorial writes it, with the canary as its hash."""
    stored = {"username": username, "type": "userprofile", "hashed_password": CANARY, **fields}
    return json.dumps(stored, ensure_ascii=False).encode()


def user_document(username: str, /, **fields: object) -> Document:
    """The same under the user's key, on its way into a store."""
    return Document(document_key(username), document(username, **fields))


PATIENT = {"queue_target": 3600.0, "queue_burst": 3600.0, "max_pending": 100_000}
"""Settings with which calls wait for as long as a busy machine takes. tests/test_overload.py is about the others."""


def settings_for(url: str, **values: Any) -> Settings:
    """Settings for a store and for a server on a free port; `values` by the names of the flags: `store_timeout=1`."""
    known = {setting.name: setting for setting in settings_in(Settings)}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in {"store": url, "listen": "127.0.0.1:0", "drain_delay": 0, **PATIENT, **values}.items():
        groups.setdefault(known[name].table, {})[known[name].key] = value
    return Settings.model_validate(groups)


def loaded_settings(*args: str, **env: str) -> Settings:
    """What `serve` makes of its arguments and of the environment."""
    loaded: list[Settings] = []

    @click.command()
    @options(Settings)
    def command(**values: Any) -> None:
        loaded.append(load(Settings, values))

    done = CliRunner().invoke(command, args, env=env, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return loaded[0]


def value_of(setting: Setting, settings: Settings) -> Any:
    """The setting's value."""
    return getattr(getattr(settings, setting.table), setting.key)


def open_url(url: str) -> DocumentStore:
    """Opens a store by its URL alone, to write to it too, and makes it if need be."""
    return open_store(settings_for(url), writable=True)


def documents_in(store_url: str, users: Mapping[str, Mapping[str, object]]) -> None:
    """Puts a document for each user into the store."""
    store = open_url(store_url)
    store.put([user_document(name, **fields) for name, fields in users.items()], timeout=5)
    store.close()


class GetUser:
    """GetUser by the bare stub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._stub = pb_grpc.UserProfileServiceStub(channel)

    def __call__(self, username: str, timeout: float = WAIT, **kwargs: Any) -> user_pb.User:
        return self._stub.GetUser(pb.GetUserRequest(username=username), timeout=timeout, **kwargs).user

    def future(self, username: str, **kwargs: Any) -> Any:
        """Begins a call."""
        return self._stub.GetUser.future(pb.GetUserRequest(username=username), **kwargs)

    def with_call(self, username: str, **kwargs: Any) -> tuple[pb.GetUserResponse, grpc.Call]:
        return self._stub.GetUser.with_call(pb.GetUserRequest(username=username), timeout=WAIT, **kwargs)

    def raw(self, request: bytes) -> bytes:
        """Sends and returns bare bytes."""
        return bare_call(self.channel, GET_USER)(request, timeout=WAIT)

    def error(self, username: str, **kwargs: Any) -> "CallError":
        """Makes a call that has to fail."""
        return CallError.of(lambda: self(username, **kwargs))


class CallError:
    """The error of a failed call."""

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


def bare_call(channel: grpc.Channel, path: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    """A call that sends and returns bare bytes."""
    return channel.unary_unary(path)


def bare_stream(channel: grpc.Channel, path: str) -> "grpc.StreamStreamMultiCallable[bytes, bytes]":
    """The same for streams of bytes, which may hold one."""
    return channel.stream_stream(path)


def reflection_stub(channel: grpc.Channel) -> Any:
    """The stub of the reflection service, likewise."""
    return reflection_pb2_grpc.ServerReflectionStub(channel)


def health_stub(channel: grpc.Channel) -> Any:
    """The stub of the health service, whose types know no methods."""
    return health_pb2_grpc.HealthStub(channel)


class ScriptedStore:
    """A store of one user, whose reads do what a test says first."""

    def __init__(self, before_get: Callable[[float], None]) -> None:
        self._before_get = before_get

    def get(self, key: str, *, timeout: float) -> bytes | None:
        self._before_get(timeout)
        return document("johndoe") if key == document_key("johndoe") else None

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], *, timeout: float
    ) -> dict[str, T | StoreError | None]:
        found: dict[str, T | StoreError | None] = {}
        for key in keys:
            try:
                content = self.get(key, timeout=timeout)
            except StoreError as error:
                found[key] = error
            else:
                found[key] = None if content is None else parse(key, content)
        errors = [error for error in found.values() if isinstance(error, StoreError)]
        if len(errors) == len(keys):
            raise errors[0]
        return found

    def put(self, documents: Any, *, timeout: float) -> int:
        raise NotImplementedError

    def probe(self, *, timeout: float) -> None:
        pass

    def close(self) -> None:
        pass


def run(
    program: str, *args: object, stdin: bytes | str | None = None, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a program of ours to its end, and looks for the canary in what it prints."""
    process = start(program, args, env)
    try:
        stdout, stderr = process.communicate(stdin.encode() if isinstance(stdin, str) else stdin, timeout=WAIT)
    finally:
        process.kill()
    look(f"stdout of {program}", stdout)
    look(f"stderr of {program}", stderr)
    return subprocess.CompletedProcess([program, *map(str, args)], process.wait(), stdout.decode(), stderr.decode())


class ServerProcess:
    """`userprofile-server serve` as a process of its own, on a free port; without a URL, as `args` and `env` say."""

    _fork = True

    def __init__(self, store_url: str, *args: str, **env: str) -> None:
        command = ["serve", *(["--store", store_url, "--listen", "127.0.0.1:0"] if store_url else []), *args]
        patience = {SERVER_PREFIX + name.upper(): str(seconds) for name, seconds in PATIENT.items()}
        self._process = start("userprofile-server", command, patience | env, fork=self._fork)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.pid = self._process.pid
        self.stdout = self.stderr = ""
        self._readers = [threading.Thread(target=self._read, args=[name]) for name in ("stdout", "stderr")]
        for reader in self._readers:
            reader.start()
        try:
            eventually(lambda: "\n" in self.stdout or self._process.poll() is not None, "the server listens or ends")
            assert self.stdout.startswith("listening on "), (self.stdout, self.stderr)
        except BaseException:
            self.__exit__()
            raise
        self.address = self.stdout.removeprefix("listening on ").strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float = WAIT) -> int:
        status = self._process.wait(timeout)
        for reader in self._readers:
            reader.join()
        for name in ("stdout", "stderr"):
            look(f"{name} of a server process", getattr(self, name))
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait()

    def _read(self, name: str) -> None:
        stream: IO[bytes] = getattr(self._process, name)
        with stream:
            for line in stream:
                setattr(self, name, getattr(self, name) + line.decode())


class FreshServerProcess(ServerProcess):
    """One that is started as operators do: what it says while it imports counts too."""

    _fork = False


def eventually(condition: Callable[[], object], what: str | Callable[[], str], timeout: float = WAIT) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what() if callable(what) else what}"
        time.sleep(0.01)
