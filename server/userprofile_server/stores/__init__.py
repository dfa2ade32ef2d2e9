"""The stores, chosen by URL. A new one is a module here with an `open_…` function, and a line in `_OPENERS`."""

from collections.abc import Callable

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.settings import StoreSettings
from userprofile_server.stores.base import Document, Outcome, UserReader, UserStore
from userprofile_server.stores.sqlite import open_sqlite

__all__ = ["Document", "Outcome", "UserReader", "UserStore", "is_cluster", "open_store"]


def _open_couchbase(settings: StoreSettings) -> UserStore:
    # Imported when it is asked for: the SDK is large, and a process that serves SQLite has no use for it.
    from userprofile_server.stores.couchbase import open_couchbase

    return open_couchbase(settings)


_OPENERS: dict[str, Callable[[StoreSettings], UserStore]] = {
    "sqlite": open_sqlite,
    "couchbase": _open_couchbase,
    "couchbases": _open_couchbase,
}


def open_store(settings: StoreSettings) -> UserStore:
    """Opens a handle on the store at `settings.store`, for example `sqlite:///users.db`.

    Raises:
        StoreMisconfiguredError: the URL isn't one of a store, or what it names can't be used.
        StoreUnavailableError: the store can't be reached now.
    """
    scheme, separator, _ = settings.store.partition("://")
    opener = _OPENERS.get(scheme)
    if not separator or opener is None:
        known = ", ".join(f"{scheme}://" for scheme in _OPENERS)
        raise StoreMisconfiguredError(f"a store's URL begins with one of: {known}", permanent=True)
    return opener(settings)


def is_cluster(url: str) -> bool:
    """Whether the store at `url` has nodes, of which one can be lost while the others answer.

    Several threads may read from one handle on such a store at once, and none of them waits for another.
    """
    return url.startswith(("couchbase://", "couchbases://"))
