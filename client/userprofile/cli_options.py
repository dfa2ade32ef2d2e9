"""The options of every command that calls a server. Each is also an environment variable."""

import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from userprofile.call_options import TLS
from userprofile.client import DEFAULT_TARGET, DEFAULT_TIMEOUT, UserProfileClient
from userprofile.environment import (
    CLIENT_VARIABLES,
    SERVER_PREFIX,
    EnvironmentOption,
    from_environment,
    problem_of_text,
    unknown_variables,
)

_FILE = click.Path(path_type=Path)

_OPTIONS: dict[str, dict[str, Any]] = {
    "--target": {"default": DEFAULT_TARGET, "help": "Address of the service: host:port or unix:path."},
    "--timeout": {
        "default": DEFAULT_TIMEOUT,
        "type": click.FloatRange(min=0, min_open=True),
        "help": "Seconds to wait for the response, retries included.",
    },
    "--retries": {
        "default": 2,  # so that people soon see that the service is down
        "type": click.IntRange(0, 4),
        "help": "Maximum number of retries while the service is unavailable.",
    },
    "--token-file": {"type": _FILE, "help": "File with the bearer token. USERPROFILE_TOKEN takes the token itself."},
    "--allow-plaintext-token": {"is_flag": True, "help": "Allow sending the token without TLS to other machines."},
    "--tls": {"is_flag": True, "help": "Use TLS. Each of the options below implies it."},
    "--tls-ca": {"type": _FILE, "help": "Root certificates to trust (PEM) instead of gRPC's."},
    "--tls-certificate": {"type": _FILE, "help": "Client certificate (PEM)."},
    "--tls-key": {"type": _FILE, "help": "Private key of the client certificate (PEM)."},
    "--tls-server-name": {"help": "Name in the server's certificate, if it isn't the host of --target."},
}


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds these options to `command`, and passes it a client made from them as its first argument."""

    @functools.wraps(command)
    def with_client(
        target: str,
        timeout: float,
        retries: int,
        token_file: Path | None,
        allow_plaintext_token: bool,
        tls: bool,
        tls_ca: Path | None,
        tls_certificate: Path | None,
        tls_key: Path | None,
        tls_server_name: str | None,
        **arguments: Any,
    ) -> None:
        with suppress(OSError):  # an unreadable stderr is no reason to stop
            for line in unknown_variables(CLIENT_VARIABLES, foreign=SERVER_PREFIX):
                click.echo(f"warning: {line}", err=True)
        details = TLS(ca=tls_ca, certificate=tls_certificate, key=tls_key, server_name=tls_server_name)
        try:
            client = UserProfileClient(
                target,
                timeout=timeout,
                retries=retries,
                wait_for_ready=False,
                token=None if token_file is not None else _token_of_environment(),
                token_file=token_file,
                allow_plaintext_token=allow_plaintext_token,
                tls=details if tls or details != TLS() else None,
            )
        except OSError as error:
            raise click.UsageError(f"{error.filename} can't be read: {error.strerror}") from None
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        with client:
            command(client, **arguments)

    decorated: Callable[..., None] = with_client
    for name, settings in reversed(_OPTIONS.items()):
        variable = "USERPROFILE_" + name.removeprefix("--").replace("-", "_").upper()
        settings = {"envvar": variable, "show_envvar": True, "show_default": "default" in settings, **settings}
        decorated = click.option(name, cls=EnvironmentOption, **settings)(decorated)
    return decorated


def _token_of_environment() -> str | None:
    token = from_environment("USERPROFILE_TOKEN")
    if token is not None and (problem := problem_of_text(token)):
        raise ValueError(f"USERPROFILE_TOKEN {problem}")
    return token
