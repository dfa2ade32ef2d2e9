"""The tutorial's FastAPI endpoint: as it is written, with a connection for each request, or `--tuned`."""

import functools
import socket
import sys

import uvicorn
from couchbase.collection import Collection
from fastapi import FastAPI

from bench.servers import tutorial

TUNED = "--tuned" in sys.argv

app = FastAPI()


@functools.cache
def _shared_collection() -> Collection:
    return tutorial.open_collection(tuned=True)


@app.get("/users/{username}", response_model=tutorial.User)
def read_user(username: str) -> tutorial.UserInDB | None:
    """The endpoint."""
    collection = _shared_collection() if TUNED else tutorial.open_collection(tuned=False)
    return tutorial.get_user(collection, username)


if __name__ == "__main__":
    if TUNED:
        _shared_collection()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # Tuned: what `uvicorn[standard]` picks by itself, said here so that its absence would be an error.
    quick = {"loop": "uvloop", "http": "httptools"} if TUNED else {}
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, **quick)).run(sockets=[listener])
