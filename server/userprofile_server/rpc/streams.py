"""Streams that hold no thread: an open stream costs only memory, even if its client sends nothing or doesn't read.

The public interface of grpc's threaded server has no such streams: receiving a request blocks a thread, and so does
sending a response. In grpc's core both are operations with a callback, which are started here directly.
"""

from collections.abc import Callable
from typing import Any

import grpc
from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_RECEIVE = "receive_message"
_SEND = "send_message"
_STATUS = "send_status_from_server"
_NO_FLAGS = 0


class Stream:
    """The call of a streaming method. Callbacks (`then`) run on grpc's own thread and must not block."""

    def __init__(self, context: Any) -> None:
        """Takes the context that grpc passes to a non-blocking behavior."""
        self._state = context._state
        self._call = context._rpc_event.call

    def receive(self, then: Callable[[bytes | None], object]) -> None:
        """Calls `then` with the bytes of the next request, or with None at the end of the stream."""

        def received(event: Any) -> Any:
            data = event.batch_operations[0].message()
            with self._state.condition:
                finished = _server._possibly_finish_call(self._state, _RECEIVE)
            then(data)
            return finished

        self._begin([cygrpc.ReceiveMessageOperation(_NO_FLAGS)], _RECEIVE, received)

    def send(self, data: bytes, then: Callable[[], object]) -> None:
        """Sends a response, and calls `then` when the next one may be sent."""

        def sent(_event: Any) -> Any:
            with self._state.condition:
                finished = _server._possibly_finish_call(self._state, _SEND)
            then()
            return finished

        self._begin([*self._initial_metadata(), cygrpc.SendMessageOperation(data, _NO_FLAGS)], _SEND, sent)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, message: str = "") -> None:
        """Ends the call, with the trailing metadata of its context."""

        def ended(_event: Any) -> Any:
            with self._state.condition:
                return _server._possibly_finish_call(self._state, _STATUS)

        status = cygrpc.SendStatusFromServerOperation(
            self._state.trailing_metadata, code.value[0], message.encode(), _NO_FLAGS
        )
        self._state.code = code  # for the telemetry, which looks at it when the call has ended
        self._begin([*self._initial_metadata(), status], _STATUS, ended)

    def _initial_metadata(self) -> list[Any]:
        if not self._state.initial_metadata_allowed:
            return []
        return [cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)]

    def _begin(self, operations: list[Any], token: str, then: Callable[[Any], Any]) -> None:
        with self._state.condition:
            if not _server._is_rpc_state_active(self._state):
                return
            self._call.start_server_batch(operations, then)
            self._state.due.add(token)
            if token != _RECEIVE:
                self._state.initial_metadata_allowed = False
            if token == _STATUS:
                self._state.statused = True
