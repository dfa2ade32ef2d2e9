"""What is measured: this service, and what its users would take instead."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.load import ROOT
from bench.processes import Server

PYTHON = Path(sys.executable)
OURS = PYTHON.parent / "userprofile-server"
GO = ROOT / "build" / "bench-go"

QUIET = "--log-level", "error"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server to measure."""

    name: str
    command: tuple[str | Path, ...]
    kind: str = "grpc"
    store: str = "couchbase"
    """Which of the run's stores it reads: "couchbase", "sqlite", or "none"."""
    quick: bool = False
    """Whether the short run has it too."""
    alone: bool = False
    """Whether the others would suffer from it while it does nothing: it is then measured after them."""

    def start(self, stores: Mapping[str, Mapping[str, str]], log: Path) -> Server:
        """Starts it on its store."""
        return Server(self.command, stores[self.store], log)


def ours_of(tree: Path, name: str, store: str) -> Peer:
    """The service out of a tree that has been set up."""
    program = tree / ".venv" / "bin" / "userprofile-server"
    return Peer(name=name, command=(program, "serve", "--listen", "127.0.0.1:0", *QUIET), store=store)


EMPTY = Peer(name="empty grpcio handler", command=(PYTHON, "-m", "bench.servers.empty"), store="none", quick=True)
OURS_SQLITE = Peer(
    name="userprofile, SQLite", command=(OURS, "serve", "--listen", "127.0.0.1:0", *QUIET), store="sqlite", quick=True
)
OURS_COUCHBASE = Peer(
    name="userprofile, Couchbase", command=(OURS, "serve", "--listen", "127.0.0.1:0", *QUIET), quick=True
)
OURS_SHARED = Peer(
    name="userprofile, Couchbase, shared",
    command=(OURS, "serve", "--listen", "127.0.0.1:0", "--share-handle", "--workers", "8", *QUIET),
)
FASTAPI = Peer(
    name="FastAPI, tuned", command=(PYTHON, "-m", "bench.servers.fastapi_server", "--tuned"), kind="http", quick=True
)
PEERS = [
    EMPTY,
    OURS_SQLITE,
    OURS_COUCHBASE,
    OURS_SHARED,
    FASTAPI,
    # Each of its connections leaves threads behind, thousands in the end.
    Peer(name="FastAPI, as written", command=(PYTHON, "-m", "bench.servers.fastapi_server"), kind="http", alone=True),
    Peer(name="naive grpcio", command=(PYTHON, "-m", "bench.servers.naive")),
    Peer(name="grpc.aio + acouchbase", command=(PYTHON, "-m", "bench.servers.aio")),
    Peer(name="Go + gocb", command=(GO,)),
]
