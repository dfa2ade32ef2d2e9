"""The settings of a Couchbase store beside its URL."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from userprofile_server.settings_base import Group, Seconds


class CouchbaseSettings(Group):
    """How to log in to a cluster, and how long connecting may take."""

    username: str | None = Field(default=None, description="The user to log in as.")
    password: SecretStr | None = Field(default=None, description="The user's password.")
    password_file: Path | None = Field(
        default=None, description="A file that holds the password; read again for each new connection."
    )
    certificate: Path | None = Field(
        default=None,
        description="A client certificate (PEM) to connect with instead of a password; needs couchbases://.",
    )
    key: Path | None = Field(default=None, description="The private key (PEM) of the client certificate.")
    ca: Path | None = Field(
        default=None, description="The certificate authorities to trust (PEM); by default those that the SDK trusts."
    )
    connect_timeout: Seconds = Field(default=1.0, description="Seconds for connecting to one node.")
    bootstrap_timeout: Seconds = Field(
        default=2.0,
        description="Seconds for connecting to the cluster. The server retries until it succeeds.",
    )
    sdk_telemetry: bool = Field(
        default=False, description="Enable the SDK's tracing and metrics. Nearly doubles its cost of a read."
    )

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give either USERPROFILE_SERVER_COUCHBASE_PASSWORD or --couchbase-password-file, not both")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("--couchbase-certificate and --couchbase-key go together")
        if self.certificate is not None and (self.password or self.password_file) is not None:
            raise ValueError("give either a client certificate or a password, not both")
        return self
