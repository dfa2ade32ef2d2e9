"""The table of all metrics. The page, the dashboard, the alerts and the docs follow from it.

Names of calls are those of go-grpc-middleware, which existing dashboards know, and those of gRFC A66, the coming
standard, both from the same numbers: https://github.com/grpc-ecosystem/go-grpc-middleware and
https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
"""

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric of the page."""

    name: str
    """In the form that Prometheus stores: a counter's ends in `_total`."""
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    """`process`, the number of one of several processes, is always the last. Without it, they are added up."""


_PROCESS = ("process",)
_METHOD = ("grpc_type", "grpc_service", "grpc_method")

STARTED = Metric("grpc_server_started_total", "counter", "Calls that were started.", _METHOD)
HANDLED = Metric("grpc_server_handled_total", "counter", "Calls that have ended, by status.", (*_METHOD, "grpc_code"))
HANDLING = Metric(
    "grpc_server_handling_seconds",
    "histogram",
    "Seconds from the arrival of a call's request to its response, time in the queue included.",
    _METHOD,
)
A66_STARTED = Metric("grpc_server_call_started_total", "counter", "The same as grpc_server_started.", ("grpc_method",))
A66_DURATION = Metric(
    "grpc_server_call_duration_seconds",
    "histogram",
    "The same as grpc_server_handling_seconds, by status.",
    ("grpc_method", "grpc_status"),
)

ERRORS = Metric(
    "userprofile_errors_total",
    "counter",
    "Failed calls, by the reason that the caller received; denials and refusals too.",
    ("grpc_service", "grpc_method", "reason"),
)
QUEUED = Metric("userprofile_queue_seconds", "histogram", "Seconds that calls waited for a worker.")
QUEUE = Metric("userprofile_queue_calls", "gauge", "Calls that wait for a worker now.", _PROCESS)
QUEUE_AGE = Metric(
    "userprofile_queue_age_seconds", "gauge", "Seconds that the first of them has waited; 0 while none waits.", _PROCESS
)
RUNNING = Metric("userprofile_running_calls", "gauge", "Calls that workers serve now.", _PROCESS)
WORKERS = Metric("userprofile_workers", "gauge", "Threads that serve calls, with spare ones.", _PROCESS)
HALF_SENT = Metric("userprofile_half_sent_requests", "gauge", "Calls whose request has not arrived yet.", _PROCESS)
WATCHES = Metric("userprofile_health_watches", "gauge", "Open streams of health.", _PROCESS)
READY = Metric("userprofile_ready", "gauge", "1 while health reports SERVING.", _PROCESS)

STORE = Metric(
    "userprofile_store_operation_seconds",
    "histogram",
    "Seconds that operations of the store took, by outcome: ok, timeout, unavailable, or failed.",
    ("operation", "outcome"),
)
STORE_CONNECTED = Metric(
    "userprofile_store_connected", "gauge", "1 while this connection to the store responds.", ("connection", "process")
)
STORE_CONNECTS = Metric(
    "userprofile_store_connects_total", "counter", "Times that a connection to the store was made, the first included."
)
STORE_LOSSES = Metric("userprofile_store_losses_total", "counter", "Times that a connection to the store was lost.")

CERTIFICATE = Metric(
    "userprofile_certificate_not_after_seconds",
    "gauge",
    "Unix time at which a certificate expires.",
    ("certificate", "process"),
)
FILE_CHANGES = Metric(
    "userprofile_file_changes_total",
    "counter",
    "Changed files of certificates, tokens, keys and rules that were read again, by result: used or invalid.",
    ("file", "result"),
)
FILE_VALID = Metric(
    "userprofile_file_valid",
    "gauge",
    "0 while what was read before stays in use, because a file is invalid.",
    ("file", "process"),
)

LOG_DROPPED = Metric(
    "userprofile_log_lines_dropped_total",
    "counter",
    "Lines of the log that were lost, because standard error was not read.",
)
PROCESS_ENDS = Metric(
    "userprofile_process_restarts_total",
    "counter",
    "Server processes that ended while the server ran, other than by SIGHUP; each is started again.",
)
CPU = Metric("process_cpu_seconds_total", "counter", "CPU time of a process, in seconds.", _PROCESS)
MEMORY = Metric("process_resident_memory_bytes", "gauge", "Resident memory of a process.", _PROCESS)
DESCRIPTORS = Metric("process_open_fds", "gauge", "Open files and sockets of a process.", _PROCESS)
START = Metric("process_start_time_seconds", "gauge", "Unix time at which a process started.", _PROCESS)
BUILD = Metric(
    "userprofile_build_info",
    "gauge",
    "1, with the versions of what runs.",
    ("version", "python", "grpcio", "store", "process"),
)

METRICS = (
    STARTED, HANDLED, HANDLING, A66_STARTED, A66_DURATION,
    ERRORS, QUEUED, QUEUE, QUEUE_AGE, RUNNING, WORKERS, HALF_SENT, WATCHES, READY,
    STORE, STORE_CONNECTED, STORE_CONNECTS, STORE_LOSSES,
    CERTIFICATE, FILE_CHANGES, FILE_VALID,
    LOG_DROPPED, PROCESS_ENDS, CPU, MEMORY, DESCRIPTORS, START, BUILD,
)  # fmt: skip
"""All, in the order of the page."""


def build_key(store: str) -> tuple[str, ...]:
    """Returns the key of BUILD for this process and its kind of store."""
    return BUILD.name, metadata.version("userprofile"), platform.python_version(), metadata.version("grpcio"), store
