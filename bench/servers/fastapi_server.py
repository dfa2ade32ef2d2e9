"""The tutorial's FastAPI endpoint: as published, with a connection per request, or `--tuned`; `--two`: two workers."""

import functools
import socket
import sys
from typing import Any

import uvicorn
from couchbase.collection import Collection
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

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
    if TUNED and "--two" not in sys.argv:
        _shared_collection()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # Tuned: the defaults of `uvicorn[standard]`, explicit so that missing packages are an error.
    quick = {"loop": "uvloop", "http": "httptools"} if TUNED else {}
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, **quick}
    if "--two" in sys.argv:
        Multiprocess(uvicorn.Config("bench.servers.fastapi_server:app", workers=2, **settings), [listener]).run()
    else:
        uvicorn.Server(uvicorn.Config(app, **settings)).run([listener])
