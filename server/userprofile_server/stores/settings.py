"""The settings of all stores, with those that each kind of store adds."""

from typing import Annotated

from pydantic import Field

from userprofile_server.settings_base import Group, Named, Seconds
from userprofile_server.stores.couchbase.settings import CouchbaseSettings


class StoreSettings(Group):
    """Settings of any kind of store."""

    url: Annotated[str, Named("store")] = Field(
        default="sqlite:///userprofile.db",
        description=(
            "The store's URL: sqlite:///relative.db, sqlite:////absolute/path.db or"
            " couchbase://host1,host2/bucket?scope=…&collection=…&network=… (couchbases:// with TLS)."
        ),
    )
    timeout: Seconds = Field(
        default=2.0, description="Seconds that one read may wait for the store; an earlier deadline of the caller wins."
    )


class StorageSettings(Group):
    """Everything that opening a store needs: the settings of `check` and `import`."""

    store: StoreSettings = StoreSettings()
    couchbase: CouchbaseSettings = CouchbaseSettings()
