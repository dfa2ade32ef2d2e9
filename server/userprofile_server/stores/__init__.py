"""The stores, chosen by URL. A new one is a module here with an `open_…` function, and a line in `_OPENERS`."""

from collections.abc import Callable

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.stores.base import Document, UserStore
from userprofile_server.stores.sqlite import open_sqlite

__all__ = ["Document", "UserStore", "open_store"]

_OPENERS: dict[str, Callable[[str], UserStore]] = {
    "sqlite": open_sqlite,
}


def open_store(url: str) -> UserStore:
    """Opens a handle on the store at `url`, for example `sqlite:///users.db`.

    Raises:
        StoreMisconfiguredError: the URL isn't one of a store, or what it names can't be used.
        StoreUnavailableError: the store can't be reached now.
    """
    scheme, separator, _ = url.partition("://")
    opener = _OPENERS.get(scheme)
    if not separator or opener is None:
        known = ", ".join(f"{scheme}://" for scheme in _OPENERS)
        raise StoreMisconfiguredError(f"a store's URL begins with one of: {known}")
    return opener(url)
