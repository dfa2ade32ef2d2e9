"""Both Python clients behind one face, so that each test is a test of both."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.canary import look
from userprofile import AsyncUserProfileClient, UserProfileClient

T = TypeVar("T")

MakeClient = Callable[..., Any]


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=60)

    def close(self) -> None:
        left = self.run(_other_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        assert not left, left


async def _other_tasks() -> set[Any]:
    await asyncio.sleep(0)  # what was cancelled a moment ago may take notice
    return asyncio.all_tasks() - {asyncio.current_task()}


class BlockingAsyncClient:
    """An AsyncUserProfileClient that is called like its twin."""

    def __init__(self, loop: LoopThread, *args: Any, **kwargs: Any) -> None:
        self._loop = loop
        self.client = AsyncUserProfileClient(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            result = self._loop.run(method(*args, **kwargs))
            look(f"result of {name}", result)
            return result

        return call

    def iter_users(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        outcomes: AsyncIterator[Any] = self.client.iter_users(*args, **kwargs)
        try:
            while True:
                outcome = self._loop.run(_next(outcomes))
                look("outcome", outcome)
                if outcome is None:
                    return
                yield outcome
        finally:
            self._loop.run(outcomes.aclose())  # type: ignore[attr-defined]


async def _next(outcomes: AsyncIterator[Any]) -> Any:
    return await anext(outcomes, None)


@contextmanager
def making(kind: str) -> Iterator[MakeClient]:
    """Yields what makes clients of this kind, "sync" or "async", and closes all of them."""
    loop = LoopThread() if kind == "async" else None
    made: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        client = BlockingAsyncClient(loop, *args, **kwargs) if loop else UserProfileClient(*args, **kwargs)
        made.append(client)
        return client

    try:
        yield make
    finally:
        for client in made:
            client.close()
        if loop is not None:
            loop.close()
