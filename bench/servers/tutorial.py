"""The tutorial's code, ported to the current SDK: the model with the hash, and reading a user into it."""

import os
from datetime import timedelta

from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.collection import Collection
from couchbase.exceptions import DocumentNotFoundException
from couchbase.options import ClusterOptions, ClusterTimeoutOptions
from pydantic import BaseModel

from userprofile_server.stores.couchbase.url import CouchbaseURL

URL = CouchbaseURL.parse(os.environ["USERPROFILE_SERVER_STORE"])


class User(BaseModel):
    """The public fields."""

    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None


class UserInDB(User):
    """The whole document."""

    type: str = "userprofile"
    hashed_password: str


def cluster_options(*, tuned: bool) -> ClusterOptions:
    """Returns the SDK's default options, or tuned ones without tracing and metrics."""
    authenticator = PasswordAuthenticator(
        os.environ["USERPROFILE_SERVER_COUCHBASE_USERNAME"], os.environ["USERPROFILE_SERVER_COUCHBASE_PASSWORD"]
    )
    timeouts = ClusterTimeoutOptions(kv_timeout=timedelta(seconds=30))
    if not tuned:
        return ClusterOptions(authenticator, timeout_options=timeouts)
    return ClusterOptions(
        authenticator,
        timeout_options=timeouts,
        enable_tracing=False,
        enable_metrics=False,
        enable_app_telemetry=False,
    )


def open_collection(*, tuned: bool) -> Collection:
    """Opens a new connection."""
    cluster = Cluster(URL.connection, cluster_options(tuned=tuned))
    return cluster.bucket(URL.bucket).default_collection()


def get_user(collection: Collection, username: str) -> UserInDB | None:
    """Reads a user as the tutorial does."""
    try:
        result = collection.get(f"userprofile::{username}")
    except DocumentNotFoundException:
        return None
    return UserInDB(**result.content_as[dict])
