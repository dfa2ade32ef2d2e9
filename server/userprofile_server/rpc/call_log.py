"""The access log: a line for each failed call, and for a fraction of the others."""

import logging
import random

import grpc

from userprofile_server.rpc import health
from userprofile_server.rpc.stages import Method
from userprofile_server.telemetry.call import Call

_log = logging.getLogger("userprofile_server.calls")

_OK, _CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED


class CallLog:
    """Logs the calls of one method; see `rpc/stages/telemetry.py`.

    Failed calls are counted instead of logged when they repeat (`telemetry/logs.py`). A line says who called, if known,
    but never whose profile was requested.
    """

    def __init__(self, fraction: float, method: Method) -> None:
        """`fraction` of the successful calls are logged; none of health's, which are frequent and say little."""
        self._fraction = 0.0 if method.containing_service is health.SERVICE else fraction
        self._method = f"{method.containing_service.full_name}/{method.name}"

    def started(self) -> None:
        """Does nothing."""

    def ended(self, call: Call, code: grpc.StatusCode, seconds: float, queued: float | None) -> None:
        """Logs the call, perhaps."""
        failed = code is not _OK and code is not _CANCELLED
        if not failed and random.random() >= self._fraction:  # noqa: S311, not a secret
            return
        fields = {
            "principal": call.principal,
            "method": self._method,
            "status": code.name,
            "reason": call.reason,
            "duration_ms": round(seconds * 1000, 3),
            "queue_ms": None if queued is None else round(queued * 1000, 3),
        }
        extra = {"call": call, "fields": {name: value for name, value in fields.items() if value is not None}}
        if failed:
            extra["kind"] = f"{self._method} failed: {call.reason or code.name}"
        _log.info("call", extra=extra)
