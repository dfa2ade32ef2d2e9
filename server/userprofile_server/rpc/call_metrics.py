"""Counts every call, for the metrics."""

import grpc

from userprofile_server.rpc.stages import Method
from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.call import Call
from userprofile_server.telemetry.recorder import Recorder


class CallMetrics:
    """Counts the calls of one method; see `rpc/stages/telemetry.py`."""

    def __init__(self, recorder: Recorder, method: Method) -> None:
        """Counts with `recorder`."""
        service = method.containing_service.full_name
        labels = (_type_of(method), service, method.name)
        self._recorder = recorder
        self._started = (metrics.STARTED.name, *labels)
        self._ended = {code: (metrics.HANDLED.name, *labels, code.name) for code in grpc.StatusCode}
        self._succeeded = self._ended[_OK]
        self._error = (metrics.ERRORS.name, service, method.name)
        recorder.count(self._started, 0)

    def started(self) -> None:
        """Counts a call that was started."""
        self._recorder.count(self._started)

    def ended(self, call: Call, code: grpc.StatusCode, seconds: float, queued: float | None) -> None:
        """Counts a call that has ended, by status and reason."""
        if queued is not None:
            self._recorder.observe(_QUEUED, queued)
        # Looking up a status code costs as much as counting: its hash is computed in Python.
        self._recorder.observe(self._succeeded if code is _OK else self._ended[code], seconds)
        if call.reason is not None:
            self._recorder.count((*self._error, call.reason))


_OK = grpc.StatusCode.OK
_QUEUED = (metrics.QUEUED.name,)


def _type_of(method: Method) -> str:
    """Returns the type of a method as go-grpc-middleware calls it."""
    if method.client_streaming:
        return "bidi_stream" if method.server_streaming else "client_stream"
    return "server_stream" if method.server_streaming else "unary"
