"""The backend of this package: opens the store, and validates its URL."""

from userprofile_server.stores.base import Backend
from userprofile_server.stores.sqlite.store import open_sqlite
from userprofile_server.stores.sqlite.url import path_of

BACKEND = Backend(open=open_sqlite, check_url=path_of)
