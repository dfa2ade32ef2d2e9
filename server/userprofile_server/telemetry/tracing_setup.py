"""Turns spans on if OpenTelemetry's variables ask for them (docs/tracing.md). Imports nothing of it otherwise."""

import logging
import os
import re
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import requests

    from userprofile_server.telemetry.tracing import Tracing

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_MOST_BYTES = 65_536
"""Of a receiver's response. The exporter doesn't look at it, but would keep all of it in memory."""


def tracing_from_environment(store: str) -> "Tracing | None":
    """Returns what makes spans if the variables ask for them; None if not, or if something is wrong: that is logged.

    `store` is the kind of the store, for the spans of its operations. Each process has to call it for itself.
    """
    if not is_wanted(os.environ):
        return None
    problem = _unsupported(os.environ)
    if problem is None:
        try:
            tracing = _start(store)
        except ModuleNotFoundError as error:
            problem = f"the package {error.name!r} is missing; pip install 'userprofile[otel]' has it"
        except Exception as error:  # noqa: BLE001, of the SDK, about a variable or a file: no reason not to serve
            problem = f"{type(error).__name__}: {error}"
        else:
            _log.info("spans are sent by OTLP")
            return tracing
    _log.error("no spans are sent: %s", problem)
    return None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Returns whether the variables ask for spans: they name an exporter or an endpoint, and don't disable the SDK."""
    if _value(environment, "OTEL_SDK_DISABLED") == "true":
        return False
    exporter = _value(environment, "OTEL_TRACES_EXPORTER")
    return exporter != "none" and any((exporter, *(_value(environment, name) for name in _ENDPOINTS)))


def _unsupported(environment: Mapping[str, str]) -> str | None:
    if (exporter := _value(environment, "OTEL_TRACES_EXPORTER")) not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER is {exporter!r}, and has to be otlp"
    protocol = next(filter(None, (_value(environment, name) for name in _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        return f"the protocol of OTLP is {protocol!r}, and has to be http/protobuf, mostly on port 4318"
    # The SDK would find these with the first spans, and log their values, which may be or have tokens.
    for name in _ENDPOINTS:
        if (endpoint := environment.get(name)) and not _is_url(endpoint):
            return f"{name} is no URL; it has to be http://HOST:PORT or https://HOST:PORT"
    for name in _HEADERS:
        if not unquote(environment.get(name, "")).isprintable():
            return f"{name} has a character that no header can have, such as a line end"
    return None


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:
        return False


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip().lower()


def _start(store: str) -> "Tracing":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from userprofile_server.telemetry.tracing import Tracing

    # They log headers that can't be read, and URLs with their queries, which may be tokens.
    logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_without_query)
    # The SDK reads the other variables: of samplers, limits, timeouts, certificates, headers.
    resource = Resource.create({"process.pid": os.getpid(), **_service(os.environ)})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_session(os.environ))))
    return Tracing(provider, store)


def _session(environment: Mapping[str, str]) -> "requests.Session | None":
    """Returns a session that reads little of a response; None, the SDK's, if the variables name another one."""
    import requests

    def cut_off(response: Any, *_: object, **__: object) -> None:
        if len(response.raw.read(_MOST_BYTES)) == _MOST_BYTES:
            response.raw.close()

    if any(environment.get(name) for name in _PROVIDERS):
        return None
    session = requests.Session()
    session.hooks["response"].append(cut_off)
    return session


def _without_query(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"\?\S*", "?…", record.getMessage()), None
    return True


def _service(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the attributes of the service that the variables don't set, which these would override."""
    own = {"service.name": "userprofile", "service.version": metadata.version("userprofile")}
    if environment.get("OTEL_SERVICE_NAME"):
        del own["service.name"]
    given = {pair.partition("=")[0].strip() for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")}
    return {name: value for name, value in own.items() if name not in given}
