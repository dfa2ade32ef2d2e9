"""Every setting: its default, its meaning and what is allowed, stated once.

The fields are the source of the flags (`--drain-grace`), of the environment variables
(`USERPROFILE_DRAIN_GRACE`), of `--help` and of the tables in the README; `options.py` makes the first three of them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.config import JsonDict

from userprofile_server.listen import ListenAddress, ListenError

Seconds = Annotated[float, Field(gt=0, le=3600)]

ENVIRONMENT_ONLY: JsonDict = {"environment_only": True}
"""Marks a secret: no flag, because every user of a machine can read the flags of all processes."""


class StoreSettings(BaseModel):
    """Where the users are, and how to get there."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    store: str = Field(
        "sqlite:///userprofile.db",
        description=(
            "The store's URL: sqlite:///relative.db, sqlite:////absolute/path.db or"
            " couchbase://host1,host2/bucket?scope=…&collection=…&network=… (couchbases:// with TLS)."
        ),
    )
    store_timeout: Seconds = Field(
        2.0, description="Seconds that one read may wait for the store; the caller's deadline can make it less."
    )
    couchbase_username: str | None = Field(None, description="The user to connect as.")
    couchbase_password: SecretStr | None = Field(
        None, description="The user's password.", json_schema_extra=ENVIRONMENT_ONLY
    )
    couchbase_password_file: Path | None = Field(
        None, description="A file with the password instead; read again for each new connection."
    )
    couchbase_certificate: Path | None = Field(
        None, description="A client certificate (PEM) to connect with instead of a password; needs couchbases://."
    )
    couchbase_key: Path | None = Field(None, description="The private key (PEM) of the client certificate.")
    couchbase_ca: Path | None = Field(
        None, description="The certificates (PEM) to trust; without it those that the SDK trusts."
    )
    couchbase_connect_timeout: Seconds = Field(1.0, description="Seconds for reaching one node.")
    couchbase_bootstrap_timeout: Seconds = Field(
        2.0, description="Seconds for the whole of connecting; then it begins anew, until it succeeds."
    )
    couchbase_sdk_telemetry: bool = Field(
        False, description="Let the SDK trace and measure its operations: nearly doubles what a read costs it."
    )

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.couchbase_password is not None and self.couchbase_password_file is not None:
            raise ValueError("give either USERPROFILE_COUCHBASE_PASSWORD or --couchbase-password-file, not both")
        if (self.couchbase_certificate is None) != (self.couchbase_key is None):
            raise ValueError("--couchbase-certificate and --couchbase-key go together")
        password = self.couchbase_password or self.couchbase_password_file
        if self.couchbase_certificate is not None and password is not None:
            raise ValueError("give either a client certificate or a password, not both")
        return self


class ServeSettings(StoreSettings):
    """How they are served."""

    # Declared before `listen`, whose check looks at it.
    allow_plaintext: bool = Field(
        False,
        description="Allow listening beyond this machine without TLS: anyone on the network can read along.",
    )
    listen: str = Field(
        "127.0.0.1:50051",
        description="HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0 takes a free one.",
    )
    workers: int = Field(4, ge=1, le=256, description="Threads that answer calls, each with a store handle of its own.")
    share_handle: bool = Field(
        False,
        description=(
            "One store handle for all workers: fewer sockets and threads, and less CPU for a process with one core on"
            " Couchbase; but they lose it together."
        ),
    )
    unready_after: float = Field(
        10.0,
        ge=3,
        le=3600,
        description="Seconds without any answer from the store after which health says NOT_SERVING.",
    )
    drain_grace: Seconds = Field(
        10.0, description="Seconds that calls in progress get to finish after SIGTERM or SIGINT."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What goes to stderr. Usernames appear at debug only, hashes never."
    )

    @field_validator("listen")
    @classmethod
    def _stay_on_this_machine(cls, listen: str, info: Any) -> str:
        address = ListenAddress.parse(listen)
        if not address.is_local and not info.data.get("allow_plaintext"):
            try:
                here = any(found.exists() for found in address.resolve())
            except ListenError as error:
                raise ValueError(str(error)) from None
            if not here:
                raise ValueError("this machine has no such address")
            raise ValueError(
                "this address can be reached from other machines, and without TLS anyone on the way can read"
                " along; if that is what you want, add --allow-plaintext"
            )
        return listen


def environment_variable(name: str) -> str:
    """Returns the environment variable of the setting `name`."""
    return "USERPROFILE_" + name.upper()


def flag(name: str, settings: type[BaseModel] = ServeSettings) -> str | None:
    """Returns the command-line flag of the setting `name`; None for a secret."""
    if settings.model_fields[name].json_schema_extra == ENVIRONMENT_ONLY:
        return None
    return "--" + name.replace("_", "-")
