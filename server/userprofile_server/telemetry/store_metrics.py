"""Records what a store's connections do."""

from userprofile_server.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.recorder import Recorder

_CONNECTS, _LOSSES = (metrics.STORE_CONNECTS.name,), (metrics.STORE_LOSSES.name,)


class StoreMetrics:
    """A `stores.reconnecting.StoreObserver`."""

    def __init__(self, recorder: Recorder) -> None:
        """Records with `recorder`."""
        self._recorder = recorder
        recorder.count(_CONNECTS, 0)
        recorder.count(_LOSSES, 0)

    def operation(self, name: str, seconds: float, error: StoreError | None) -> None:
        """Records an operation's duration by its outcome."""
        self._recorder.observe((metrics.STORE.name, name, _outcome(error)), seconds)

    def connected(self) -> None:
        """Counts a connection that was made."""
        self._recorder.count(_CONNECTS)

    def lost(self) -> None:
        """Counts a connection that was lost."""
        self._recorder.count(_LOSSES)


def _outcome(error: StoreError | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, StoreTimeoutError):
        return "timeout"
    return "unavailable" if isinstance(error, StoreUnavailableError) else "failed"
