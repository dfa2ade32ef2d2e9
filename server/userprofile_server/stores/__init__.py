"""The stores, chosen by URL. A new store is a package here that offers a `BACKEND`, and a line in `BACKENDS`."""

from importlib import import_module

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.stores.base import Backend, DocumentStore
from userprofile_server.stores.settings import StorageSettings

BACKENDS = {
    "sqlite": "userprofile_server.stores.sqlite.backend",
    "couchbase": "userprofile_server.stores.couchbase.backend",
    "couchbases": "userprofile_server.stores.couchbase.backend",
}
"""The module with the backend of each scheme, imported when a URL has the scheme."""


def open_store(settings: StorageSettings, *, writable: bool = False) -> DocumentStore:
    """Opens a connection to the store at `settings.store.url`, for example `sqlite:///users.db`.

    Only a `writable` connection allows `put`, and only it creates a missing store: reading, checking and reconnecting
    never create anything.

    Raises:
        StoreMisconfiguredError: the URL is invalid, its store can't be used, or the driver isn't installed.
        StoreDamagedError: the store's data can't be read.
        StoreUnavailableError: the store can't be reached now, or there is no such file.
    """
    backend = backend_of(settings.store.url)
    backend.check_url(settings.store.url)
    return backend.open(settings, writable)


def check_url(url: str) -> None:
    """Validates a store's URL, without opening anything.

    Raises:
        StoreMisconfiguredError: the URL is invalid.
    """
    backend_of(url).check_url(url)


def kind_of(url: str) -> str:
    """Returns the name of the store's package, for a valid URL: `couchbase` for couchbases://… too."""
    return BACKENDS[url.partition("://")[0]].split(".")[-2]


def backend_of(url: str) -> Backend:
    """Returns the backend for `url`, by its scheme.

    Raises:
        StoreMisconfiguredError: no store has this scheme.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in BACKENDS:
        known = ", ".join(f"{scheme}://" for scheme in BACKENDS)
        raise StoreMisconfiguredError(f"a store's URL begins with one of: {known}", permanent=True)
    backend: Backend = import_module(BACKENDS[scheme]).BACKEND
    return backend
