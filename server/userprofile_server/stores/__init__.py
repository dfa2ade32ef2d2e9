"""The stores, chosen by URL. A new one is a module here with an `open_…` function, and a line in `_OPENERS`."""

from typing import Protocol

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.settings import StoreSettings
from userprofile_server.stores.base import Document, Examinable, Outcome, UserReader, UserStore
from userprofile_server.stores.couchbase_url import CouchbaseURL
from userprofile_server.stores.sqlite import open_sqlite
from userprofile_server.stores.sqlite_url import path_of

__all__ = ["Document", "Examinable", "Outcome", "UserReader", "UserStore", "check_url", "is_cluster", "open_store"]


def _open_couchbase(settings: StoreSettings, *, writable: bool) -> UserStore:  # noqa: ARG001, the cluster knows
    # Imported when it is asked for: the SDK is large, and a process that serves SQLite has no use for it.
    from userprofile_server.stores.couchbase import open_couchbase

    return open_couchbase(settings)


class _Open(Protocol):
    def __call__(self, settings: StoreSettings, /, *, writable: bool) -> UserStore: ...


_OPENERS: dict[str, _Open] = {
    "sqlite": open_sqlite,
    "couchbase": _open_couchbase,
    "couchbases": _open_couchbase,
}


def open_store(settings: StoreSettings, *, writable: bool = False) -> UserStore:
    """Opens a handle on the store at `settings.store`, for example `sqlite:///users.db`.

    Only a `writable` one takes `put`, and only it makes a store that isn't there yet: reading, checking and
    connecting again never create anything.

    Raises:
        StoreMisconfiguredError: the URL isn't one of a store, or what it names can't be used.
        StoreDamagedError: what the store has kept can't be read.
        StoreUnavailableError: the store can't be reached now, or there is no such file.
    """
    check_url(settings.store)
    return _OPENERS[settings.store.partition("://")[0]](settings, writable=writable)


def check_url(url: str) -> None:
    """Looks at a store's URL without opening anything.

    Raises:
        StoreMisconfiguredError: it isn't one.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _OPENERS:
        known = ", ".join(f"{scheme}://" for scheme in _OPENERS)
        raise StoreMisconfiguredError(f"a store's URL begins with one of: {known}", permanent=True)
    if scheme == "sqlite":
        path_of(url)
    elif is_cluster(url):
        CouchbaseURL.parse(url)


def is_cluster(url: str) -> bool:
    """Whether the store at `url` has nodes, of which one can be lost while the others answer.

    Several threads may read from one handle on such a store at once, and none of them waits for another.
    """
    return url.startswith(("couchbase://", "couchbases://"))
