"""Figures as tables for a terminal."""

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from userprofile.printable import printable
from userprofile_server.telemetry import metrics
from userprofile_server.top.figures import Figures

_OURS = "userprofile.v1.UserProfileService"

_BAD, _WARNING, _GOOD = "bold red", "yellow", ""

_DAY = 86_400
_SOON, _WARN = 3 * _DAY, 14 * _DAY


def view(address: str, figures: Figures, problem: str | None = None) -> RenderableType:
    """Returns all tables; `problem` is why there are no newer figures."""
    head = Text(f"{address}  {time.strftime('%H:%M:%S')}", style="bold")
    for version, store in figures.now(metrics.BUILD, "version", "store"):
        head.append(printable(f"  userprofile {version}, {store}"), style="not bold")
    if problem is not None:
        head.append(f"\n{printable(problem)}", style=_BAD)
    tables = [
        _calls(figures),
        _errors(figures),
        _store(figures),
        _processes(figures),
        _certificates(figures),
    ]
    shown: list[RenderableType] = [head]
    for table in tables:
        if table.row_count:
            shown += ["", table]
    return Group(*shown, "", *_notes(figures))


def _calls(figures: Figures) -> Table:
    table = _table("CALLS", "per second", "failed", "p50", "p99", "total")
    rates = figures.rates(metrics.STARTED, "grpc_service", "grpc_method")
    failed = figures.rates(metrics.ERRORS, "grpc_service", "grpc_method")
    for (service, method), total in figures.now(metrics.STARTED, "grpc_service", "grpc_method").items():
        if not total:
            continue
        of = {"grpc_service": service, "grpc_method": method, "grpc_type": "unary"}  # streams last as they like
        errors = failed.get((service, method), 0.0)
        table.add_row(
            printable(method if service == _OURS else f"{service.rpartition('.')[2]}/{method}"),
            _number(rates[service, method]),
            Text(_number(errors), _WARNING if errors else _GOOD),
            *(_seconds(figures.quantile(each, metrics.HANDLING, **of)) for each in (0.5, 0.99)),
            f"{total:,.0f}",
        )
    return table


def _errors(figures: Figures) -> Table:
    table = _table("ERRORS", "per second", "total")
    rates = figures.rates(metrics.ERRORS, "reason")
    totals = figures.now(metrics.ERRORS, "reason")
    for key in sorted(totals, key=lambda key: (-rates[key], -totals[key])):
        table.add_row(
            Text(printable(key[0]), _WARNING if rates[key] else _GOOD), _number(rates[key]), f"{totals[key]:,.0f}"
        )
    return table


def _store(figures: Figures) -> Table:
    table = _table("STORE", "per second", "p50", "p99", "total")
    rates = figures.rates(metrics.STORE, "operation", "outcome")
    for (operation, outcome), total in figures.now(metrics.STORE, "operation", "outcome").items():
        of = {"operation": operation, "outcome": outcome}
        table.add_row(
            Text(printable(f"{operation}, {outcome}"), _GOOD if outcome == "ok" else _WARNING),
            _number(rates[operation, outcome]),
            *(_seconds(figures.quantile(each, metrics.STORE, **of)) for each in (0.5, 0.99)),
            f"{total:,.0f}",
        )
    return table


def _processes(figures: Figures) -> Table:
    table = _table("PROCESSES", "ready", "store", "busy", "waiting", "CPU", "memory", "files", "up")
    now = {metric: figures.now(metric, "process") for metric in metrics.METRICS if "process" in metric.labels}
    connections = figures.now(metrics.STORE_CONNECTED, "process", "connection")
    cpu = figures.rates(metrics.CPU, "process")
    for key in sorted(now[metrics.READY], key=lambda key: (len(key[0]), key)):
        own = {metric: values.get(key, 0.0) for metric, values in now.items()}
        connected, all_connections = own[metrics.STORE_CONNECTED], sum(key[0] == each for each, _ in connections)
        table.add_row(
            printable(key[0]),
            Text("yes", _GOOD) if own[metrics.READY] else Text("NO", _BAD),
            Text(f"{connected:.0f} of {all_connections}", _GOOD if connected == all_connections else _BAD),
            f"{own[metrics.RUNNING]:.0f} of {own[metrics.WORKERS]:.0f}",
            f"{own[metrics.QUEUE]:.0f}",
            f"{100 * cpu.get(key, 0.0):.0f} %",
            f"{own[metrics.MEMORY] / 2**20:.0f} MiB",
            f"{own[metrics.DESCRIPTORS]:.0f}",
            _long(time.time() - own[metrics.START]) if own[metrics.START] else "",
        )
    return table


def _certificates(figures: Figures) -> Table:
    table = _table("CERTIFICATES", "expires in")
    soonest: dict[str, float] = {}
    for (file, _), expiry in figures.now(metrics.CERTIFICATE, "certificate", "process").items():
        soonest[file] = min(expiry, soonest.get(file, expiry))
    for file, expiry in soonest.items():
        left = expiry - time.time()
        style = _BAD if left < _SOON else _WARNING if left < _WARN else _GOOD
        table.add_row(printable(file), Text(_long(left) if left > 0 else "has expired", style))
    return table


def _notes(figures: Figures) -> Iterator[Text]:
    """Yields a line about each thing that is worth one."""
    if (waited := figures.quantile(0.99, metrics.QUEUED)) is not None:
        yield Text(f"calls waited for a worker: {_seconds(waited)} (p99)")
    if age := max(figures.now(metrics.QUEUE_AGE, "process").values(), default=0.0):
        yield Text(f"the first call in the queue has waited for {_seconds(age)}")
    for metric, what in (
        (metrics.HALF_SENT, "requests that have not arrived yet"),
        (metrics.WATCHES, "health watches"),
    ):
        if number := sum(figures.now(metric).values()):
            yield Text(f"{what}: {number:,.0f}")
    if not figures.now(metrics.READY):
        yield Text("no process serves", _BAD)
    for file in sorted({file for (file,), valid in _lowest(figures).items() if not valid}):
        yield Text(f"{printable(file)} is invalid: what was read before stays in use", _BAD)
    for metric, what in (
        (metrics.STORE_LOSSES, "connections to the store lost"),
        (metrics.PROCESS_ENDS, "processes that ended unasked"),
        (metrics.LOG_DROPPED, "lines of the log lost"),
    ):
        if total := figures.now(metric).get((), 0.0):
            yield Text(f"{what}: {total:,.0f}", _BAD if figures.rates(metric).get((), 0.0) else _WARNING)


def _lowest(figures: Figures) -> dict[tuple[str, ...], float]:
    """Returns for each file whether it is valid in all processes."""
    found: dict[tuple[str, ...], float] = {}
    for (file, _), valid in figures.now(metrics.FILE_VALID, "file", "process").items():
        found[file,] = min(valid, found.get((file,), valid))
    return found


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:,.1f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.2f} ms"


def _long(seconds: float) -> str:
    """Returns a time of minutes, hours or days in words."""
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
