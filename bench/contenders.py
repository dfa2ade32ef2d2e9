"""The measured servers: this service and its alternatives."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import ROOT
from bench.processes import Server

PYTHON = Path(sys.executable)
OURS = PYTHON.parent / "userprofile-server"
GO = ROOT / "build" / "bench-go"

QUIET = "--log-level", "error"


@dataclass(frozen=True)
class Store:
    """The settings with which a server finds the users."""

    environment: dict[str, str] = field(default_factory=dict)
    """Settings for the other servers."""
    flags: tuple[str, ...] = ()
    """Settings for ours. `compare` also runs older versions, whose variables have other names."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server to measure."""

    name: str
    command: tuple[str | Path, ...]
    kind: str = "grpc"
    store: str = "couchbase"
    """The store that it reads: "couchbase", "sqlite", or "none"."""
    quick: bool = False
    """Whether it is also in the short run."""
    alone: bool = False
    """Whether it disturbs the others even while idle: then it is measured after them."""

    def start(self, stores: Mapping[str, Store], log: Path) -> Server:
        """Starts the server on its store."""
        store = stores[self.store]
        if "serve" in self.command:
            return Server((*self.command, *store.flags), {}, log)
        return Server(self.command, store.environment, log)


def ours_of(tree: Path, name: str, store: str, *flags: str) -> Contender:
    """Returns the service of a source tree after `make setup`."""
    program = tree / ".venv" / "bin" / "userprofile-server"
    return Contender(name=name, command=(program, "serve", "--listen", "127.0.0.1:0", *QUIET, *flags), store=store)


EMPTY = Contender(name="empty grpcio handler", command=(PYTHON, "-m", "bench.servers.empty"), store="none", quick=True)
OURS_SQLITE = Contender(
    name="userprofile, SQLite", command=(OURS, "serve", "--listen", "127.0.0.1:0", *QUIET), store="sqlite", quick=True
)
OURS_COUCHBASE = Contender(
    name="userprofile, Couchbase", command=(OURS, "serve", "--listen", "127.0.0.1:0", *QUIET), quick=True
)
OURS_SHARED = Contender(
    name="userprofile, Couchbase, shared",
    command=(OURS, "serve", "--listen", "127.0.0.1:0", "--shared-connection", "--workers", "8", *QUIET),
)
FASTAPI = Contender(
    name="FastAPI, tuned", command=(PYTHON, "-m", "bench.servers.fastapi_server", "--tuned"), kind="http", quick=True
)
FASTAPI_TWICE = Contender(name="FastAPI, tuned, two workers", command=(*FASTAPI.command, "--two"), kind="http")
CONTENDERS = [
    EMPTY,
    OURS_SQLITE,
    OURS_COUCHBASE,
    OURS_SHARED,
    FASTAPI,
    # Each of its connections leaks threads, thousands in the end.
    Contender(
        name="FastAPI, as written", command=(PYTHON, "-m", "bench.servers.fastapi_server"), kind="http", alone=True
    ),
    Contender(name="naive grpcio", command=(PYTHON, "-m", "bench.servers.naive")),
    Contender(name="grpc.aio + acouchbase", command=(PYTHON, "-m", "bench.servers.aio")),
    Contender(name="Go + gocb", command=(GO,)),
]
