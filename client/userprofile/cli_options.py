"""The options that every command has which talks to a server, each also an environment variable."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from userprofile.client import DEFAULT_TARGET, DEFAULT_TIMEOUT, UserProfileClient
from userprofile.environment import EnvironmentOption, from_environment, problem_of_secret, read_secret
from userprofile.options import TLS

_FILE = click.Path(path_type=Path)

_OPTIONS: dict[str, dict[str, Any]] = {
    "--target": {"default": DEFAULT_TARGET, "help": "The servers: host:port, or unix:path."},
    "--timeout": {
        "default": DEFAULT_TIMEOUT,
        "type": click.FloatRange(min=0, min_open=True),
        "help": "Seconds to wait for an answer, retries included.",
    },
    "--retries": {
        "default": 2,  # a person hears soon that nobody answers
        "type": click.IntRange(0, 4),
        "help": "How often to try again where the service can't be reached.",
    },
    "--token-file": {"type": _FILE, "help": "A file with the token to send; or the token itself in USERPROFILE_TOKEN."},
    "--allow-plaintext-token": {"is_flag": True, "help": "Send the token without TLS to other machines too."},
    "--tls": {"is_flag": True, "help": "Speak TLS; each of the options below has this effect too."},
    "--tls-ca": {"type": _FILE, "help": "The authorities to trust (PEM), not those that gRPC comes with."},
    "--tls-certificate": {"type": _FILE, "help": "A client certificate (PEM)."},
    "--tls-key": {"type": _FILE, "help": "The certificate's private key (PEM)."},
    "--tls-server-name": {"help": "The name in the server's certificate, where it isn't that in --target."},
}


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` these options, and a client made of them as its first argument."""

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
        details = TLS(ca=tls_ca, certificate=tls_certificate, key=tls_key, server_name=tls_server_name)
        try:
            client = UserProfileClient(
                target,
                timeout=timeout,
                retries=retries,
                wait_for_ready=False,
                token=_token(token_file),
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


def _token(path: Path | None) -> str | None:
    if path is not None:
        return read_secret(path)
    token = from_environment("USERPROFILE_TOKEN")
    if token is not None and (problem := problem_of_secret(token)):
        raise ValueError(f"USERPROFILE_TOKEN {problem}")
    return token
