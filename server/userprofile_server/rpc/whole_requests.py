"""Hands a call to a thread once its request is here, so that half a request holds none.

grpc hands over a call as soon as its headers are here, and the thread waits for the rest: as many callers as there are
workers, each lost in the middle of a request, would stop the service, and a single one health. Receiving is an
operation of grpc's core that calls back when it is over, and is asked for here before a thread is.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_RECEIVE = "receive_message"  # grpc's own word for it
_NO_FLAGS = 0


class _Uncounted:
    """What grpc is given for a future: it counts with it, and limits nothing."""

    def add_done_callback(self, _callback: Any) -> None:
        pass


_UNCOUNTED = _Uncounted()


class WholeRequests(ThreadPoolExecutor):
    """The executor of methods with one request. By type a pool, which grpc insists on, but one without threads."""

    def __init__(self, hand_over: Callable[..., object]) -> None:
        """Takes the `submit` of the executor that answers the calls."""
        self._hand_over = hand_over

    def submit(  # type: ignore[override]
        self, run: Any, respond: Any, rpc_event: Any, state: Any, behavior: Any, _wait: Any, *serialization: Any
    ) -> _Uncounted:
        """Takes what grpc submits for a call: `_wait` would wait for the request."""
        call = rpc_event.call
        receive = _server._receive_message(state, call, serialization[0])

        def received(event: Any) -> Any:
            over = receive(event)
            if state.request is not None:
                self._hand_over(run, respond, rpc_event, state, behavior, take, *serialization)
            else:
                reject()
            return over

        def take() -> Any:
            request, state.request = state.request, None
            return request

        def reject() -> None:
            with state.condition:
                if _server._is_rpc_state_active(state):  # else it was cancelled, or has been answered
                    text = b"The method takes one request message, and none was sent."
                    _server._abort(state, call, cygrpc.StatusCode.unimplemented, text)

        call.start_server_batch([cygrpc.ReceiveMessageOperation(_NO_FLAGS)], received)
        state.due.add(_RECEIVE)
        return _UNCOUNTED
