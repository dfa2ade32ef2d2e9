"""The cost of what operators see: metrics, the log of calls, trace ids and spans, beside none of it."""

import json
from collections.abc import Sequence

from bench.contenders import OURS, QUIET, Contender
from bench.load import Load

OFF = "all off"

_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"  # not sampled by the caller


def contenders(load: Load) -> dict[Contender, Load]:
    """Returns the servers, each with its load."""
    listen = ("--listen", "127.0.0.1:0")
    metrics = ("--metrics-listen", "127.0.0.1:0")
    log = ("--log-format", "json", "--log-calls", "0.01", "--log-level", "info")
    traced = Load(seconds=load.seconds, options=("--insecure", "--metadata", json.dumps({"traceparent": _TRACEPARENT})))

    # Spans end up nowhere: what an exporter costs depends on where it sends them.
    spans = ("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9", "OTEL_TRACES_SAMPLER=traceidratio")

    def server(name: str, *flags: str, variables: Sequence[str] = ()) -> Contender:
        before = ("/usr/bin/env", *variables) if variables else ()
        return Contender(name=name, command=(*before, OURS, "serve", *listen, *QUIET, *flags), store="sqlite")

    return {
        server(OFF): load,
        server(f"{OFF}, with a traceparent"): traced,
        server("metrics", *metrics): load,
        server("metrics, 1 % of calls logged as JSON", *metrics, *log): load,
        server("the same, with a traceparent", *metrics, *log): traced,
        server("1 % of calls as spans", variables=(*spans, "OTEL_TRACES_SAMPLER_ARG=0.01")): load,
        server("all calls as spans", variables=(*spans, "OTEL_TRACES_SAMPLER_ARG=1")): load,
    }
