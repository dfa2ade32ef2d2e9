"""All settings of a server, in groups."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from userprofile_server.limits import LimitSettings
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.listeners import Listener, parse_listeners
from userprofile_server.security.settings import CallerSettings, JwtSettings, TlsSettings
from userprofile_server.settings_base import Group, Seconds, Several
from userprofile_server.stores.settings import StorageSettings
from userprofile_server.telemetry.logs import LogSettings


class ServerSettings(Group):
    """How the users of a store are served."""

    # Declared before `listen`, whose validator reads it.
    allow_plaintext: bool = Field(
        default=False,
        description="Allow other machines to connect without TLS: anyone on the network can read the traffic.",
    )
    listen: Annotated[str, Several()] = Field(
        default="127.0.0.1:50051",
        description=(
            "HOST:PORT, [IPV6]:PORT or unix:PATH for plaintext, tls://HOST:PORT, or mtls://HOST:PORT, for which clients"
            " need a certificate. May be repeated; with commas between them in the variable. Port 0 picks a free port."
        ),
    )
    health_listen: str | None = Field(
        default=None,
        description=(
            "HOST:PORT for health checks alone, in plaintext: for those who can't show a certificate, like kubelet."
        ),
    )
    metrics_listen: str | None = Field(
        default=None,
        description="HOST:PORT for the metrics, at /metrics over HTTP, of all processes together.",
    )
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default=1,
        description="Processes that serve on the same port, each with its own workers; auto: one for each core.",
    )
    pinning: Literal["auto", "off"] = Field(
        default="off",
        description="auto: each process stays on a core of its own, if there are as many cores as processes.",
    )
    workers: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Threads of each process that serve calls, each with its own connection to the store.",
    )
    shared_connection: bool = Field(
        default=False,
        description=(
            "One store connection for all workers: fewer sockets and threads, and on Couchbase less CPU for a process"
            " with one core. A lost connection affects all workers."
        ),
    )
    unready_after: float = Field(
        default=10.0,
        ge=3,
        le=3600,
        description="Seconds without a successful read after which health reports NOT_SERVING.",
    )
    drain_delay: float = Field(
        default=2.0,
        ge=0,
        le=3600,
        description=(
            "Seconds after SIGTERM for which calls are still accepted while health reports NOT_SERVING, so that"
            " balancers hear of the end before it comes. A second signal cuts them short; SIGINT (Ctrl-C) has none."
        ),
    )
    drain_grace: Seconds = Field(
        default=10.0, description="Seconds that calls in progress get to finish after SIGTERM or SIGINT."
    )

    @property
    def longest_drain(self) -> float:
        """Seconds after which a drain has cancelled all remaining calls."""
        return self.drain_delay + self.drain_grace

    @property
    def listeners(self) -> list[Listener]:
        """The parsed `listen`."""
        return parse_listeners(self.listen)

    @field_validator("listen")
    @classmethod
    def _stay_on_this_machine(cls, listen: str, info: Any) -> str:
        for listener in parse_listeners(listen):
            if listener.security == "plaintext" and not info.data.get("allow_plaintext"):
                _check_local(listener.address)
        return listen

    @field_validator("health_listen", "metrics_listen")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None:
            ListenAddress.parse(address)
        return address

    @field_validator("metrics_listen")
    @classmethod
    def _has_a_port(cls, address: str | None) -> str | None:
        if address is not None and ListenAddress.parse(address).port is None:
            raise ValueError("has to be HOST:PORT: scrapers can't reach a Unix socket")
        return address


def _check_local(address: ListenAddress) -> None:
    """Raises ValueError unless only this machine can reach `address`."""
    if address.is_local:
        return
    try:
        here = any(found.exists() for found in address.resolve())
    except ListenError as error:
        raise ValueError(str(error)) from None
    if not here:
        raise ValueError("this machine has no such address")
    raise ValueError(
        "other machines can reach this address, and without TLS anyone on the network can read the traffic;"
        " use tls:// (see --tls-certificate), or to allow that, add --allow-plaintext"
    )


class Settings(StorageSettings):
    """The settings of `serve` and of a `UserProfileServer`."""

    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    callers: CallerSettings = CallerSettings()
    jwt: JwtSettings = JwtSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _tls_is_complete(self) -> "Settings":
        kinds = {listener.security for listener in self.server.listeners}
        secure, mutual = kinds - {"plaintext"}, "mtls" in kinds
        if secure and not (self.tls.certificate and self.tls.key):
            raise ValueError("--listen tls://… and mtls://… need --tls-certificate and --tls-key")
        if mutual and not self.tls.client_ca:
            raise ValueError("--listen mtls://… needs --tls-client-ca")
        if not secure and any((self.tls.certificate, self.tls.key, self.tls.client_ca)):
            raise ValueError("there are files for TLS, but no --listen begins with tls:// or mtls://")
        if self.tls.client_ca and not mutual:
            raise ValueError("--tls-client-ca is for --listen mtls://…, and there is none")
        return self

    @model_validator(mode="after")
    def _callers_have_a_policy(self) -> "Settings":
        known = {
            "--tokens": self.callers.tokens is not None,
            "--jwt-keys": self.jwt.keys is not None,
            "--listen mtls://…": any(listener.security == "mtls" for listener in self.server.listeners),
        }
        given = [flag for flag, is_given in known.items() if is_given]
        if given and self.callers.policy is None:
            raise ValueError(f"{' and '.join(given)} needs --policy: without one nobody may call anything")
        return self
