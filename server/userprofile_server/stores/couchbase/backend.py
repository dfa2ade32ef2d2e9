"""The backend of this package: opens the store, validates its URL, and diagnoses problems."""

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.stores.base import Backend, DocumentStore
from userprofile_server.stores.couchbase.diagnosis import diagnose, greet_hosts
from userprofile_server.stores.couchbase.url import CouchbaseURL
from userprofile_server.stores.settings import StorageSettings


def _open(settings: StorageSettings, writable: bool) -> DocumentStore:  # noqa: ARG001, the cluster knows
    try:
        import couchbase.cluster  # noqa: F401
    except ImportError as error:
        raise StoreMisconfiguredError(
            f"the Couchbase SDK is not installed, or can't be loaded ({error});"
            " install it with: pip install 'userprofile[server,couchbase]'",
            permanent=True,
        ) from None
    from userprofile_server.stores.couchbase.store import open_couchbase

    return open_couchbase(settings)


BACKEND = Backend(
    open=_open, check_url=CouchbaseURL.parse, look_before_opening=greet_hosts, diagnose=diagnose, has_nodes=True
)
