"""Hands a call to a worker only when its request is complete, so that an incomplete request holds no thread.

By default grpc hands over a call as soon as its headers have arrived, and the thread waits for the rest. Then as many
callers as there are workers, each lost in the middle of a request, would stop the service, and a single one would stop
health. In grpc's core, receiving is an operation with a callback; it is started here before a thread is involved.
"""

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from userprofile_server.errors import OverloadedError
from userprofile_server.rpc.waiting_calls import WaitingCalls

_RECEIVE = "receive_message"  # grpc's own name
_NO_FLAGS = 0


class _Uncounted:
    """Stands in for the future that grpc expects. grpc only uses it to count calls."""

    def add_done_callback(self, _callback: Any) -> None:
        pass


_UNCOUNTED = _Uncounted()


class WholeRequests(ThreadPoolExecutor):
    """The executor of methods with one request. A ThreadPoolExecutor only because grpc requires one: no threads."""

    def __init__(
        self,
        hand_over: Callable[..., bool],
        half_sent: WaitingCalls,
        *,
        admits: Callable[[Callable[[], Hashable], float], bool] = lambda _caller, _deadline: True,
        share_of: Callable[[Any], Hashable] | None = None,
    ) -> None:
        """Takes the `submit` of the executor that runs the calls, and the limit on incomplete requests.

        `admits` is called with the caller and the deadline before a request is received; see `Executor`. `share_of`
        returns the caller for fair queueing, by default the connection.
        """
        self._hand_over = hand_over
        self._half_sent = half_sent
        self._admits = admits
        self._share_of = share_of

    def submit(  # type: ignore[override]
        self, run: Any, respond: Any, rpc_event: Any, state: Any, behavior: Any, _wait: Any, *serialization: Any
    ) -> _Uncounted:
        """Takes what grpc submits for a call. `_wait`, which would block until the request arrives, is not called."""
        call = rpc_event.call
        caller = call.peer if self._share_of is None else partial(self._share_of, rpc_event)
        receive = _server._receive_message(state, call, serialization[0])

        def received(event: Any) -> Any:
            over = receive(event)
            try:
                if not self._half_sent.remove(state):
                    pass  # it has been refused
                elif state.request is not None:
                    size = len(state.request)
                    if not self._hand_over(
                        caller, deadline, size, refuse, run, respond, rpc_event, state, behavior, take, *serialization
                    ):
                        refuse()
                else:
                    reject()
            except Exception as error:  # noqa: BLE001, see below
                refuse(error)
            return over

        def take() -> Any:
            request, state.request = state.request, None
            # None makes grpc end the call without running it: the caller may have left while the call was queued.
            return request if _server._is_rpc_state_active(state) else None

        def reject() -> None:
            with state.condition:
                if _server._is_rpc_state_active(state):  # otherwise the call was cancelled or has ended
                    text = b"The method takes one request message, and none was sent."
                    _server._abort(state, call, cygrpc.StatusCode.unimplemented, text)

        def refuse(error: Exception | None = None) -> None:
            """Runs the call on this thread with the error as its request; the error boundary makes it a status."""
            if _server._is_rpc_state_active(state):
                error = error or OverloadedError()
                run(respond, rpc_event, state, behavior, lambda: error, *serialization)

        deadline = rpc_event.call_details.deadline
        try:
            if self._admits(caller, deadline):
                call.start_server_batch([cygrpc.ReceiveMessageOperation(_NO_FLAGS)], received)
                state.due.add(_RECEIVE)
                self._half_sent.add(state, refuse)
            else:
                refuse()
        except Exception as error:  # noqa: BLE001, a bug: this is gRPC's own thread, and its end is that of the service
            refuse(error)
        return _UNCOUNTED
