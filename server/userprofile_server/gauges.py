"""What metrics say of a server's parts at one moment."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from userprofile_server.access import Access
from userprofile_server.rpc.executor import Executor
from userprofile_server.rpc.health import Health
from userprofile_server.rpc.waiting_calls import WaitingCalls
from userprofile_server.stores.pool import StorePool
from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.snapshot import Gauge, process_gauges


def gauges(
    *, executor: Executor, half_sent: WaitingCalls, health: Health, stores: StorePool, access: Access, url: str
) -> Iterator[Gauge]:
    """Yields the values of all gauges of this process. `url` is the store's."""
    waiting, age = executor.queue()
    running, workers = executor.threads()
    yield (metrics.QUEUE.name,), waiting
    yield (metrics.QUEUE_AGE.name,), age
    yield (metrics.RUNNING.name,), running
    yield (metrics.WORKERS.name,), workers
    yield (metrics.HALF_SENT.name,), len(half_sent)
    yield (metrics.WATCHES.name,), health.watches
    yield (metrics.READY.name,), health.serving
    for number, connected in enumerate(stores.connections(), 1):
        yield (metrics.STORE_CONNECTED.name, str(number)), connected
    if access.certificates is not None:
        expiries = ((file, not_after.timestamp()) for file, not_after in access.certificates.expiries())
        yield from _worst(metrics.CERTIFICATE, expiries)
    yield from _worst(metrics.FILE_VALID, access.files())
    yield metrics.build_key(store=url.partition("://")[0]), 1
    yield from process_gauges()


def _worst(metric: metrics.Metric, files: Iterable[tuple[Path, float]]) -> Iterator[Gauge]:
    """Yields the lowest value of each file: one may be certificate, key and authorities at once."""
    lowest: dict[str, float] = {}
    for file, value in files:
        lowest[str(file)] = min(value, lowest.get(str(file), value))
    for name, value in lowest.items():
        yield (metric.name, name), value
