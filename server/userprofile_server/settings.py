"""Every setting: its flag, environment variable, default and meaning, stated once.

The fields below are the source of the flags (`--drain-grace`), of the environment variables
(`USERPROFILE_DRAIN_GRACE`), of `--help` and of the tables in the README.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from userprofile_server.listen import ListenAddress

C = TypeVar("C", bound=Callable[..., Any])
S = TypeVar("S", bound=BaseModel)

Seconds = Annotated[float, Field(gt=0, le=3600)]


class StoreSettings(BaseModel):
    """Where the users are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = Field(
        "sqlite:///userprofile.db",
        description="The store's URL: sqlite:///relative.db or sqlite:////absolute/path.db.",
    )


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
    store_timeout: Seconds = Field(
        2.0, description="Seconds that one call may wait for the store; the caller's deadline can make it less."
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
        if not ListenAddress.parse(listen).is_local and not info.data.get("allow_plaintext"):
            raise ValueError(
                "this address can be reached from other machines, and without TLS anyone on the way can read"
                " along; if that is what you want, add --allow-plaintext"
            )
        return listen


def flag(name: str) -> str:
    """Returns the command-line flag of the setting `name`."""
    return "--" + name.replace("_", "-")


def environment_variable(name: str) -> str:
    """Returns the environment variable of the setting `name`."""
    return "USERPROFILE_" + name.upper()


def options(settings: type[BaseModel]) -> Callable[[C], C]:
    """Gives a click command one option for each field of `settings`."""

    def decorate(command: C) -> C:
        # click lists options in the reverse of the order in which they are added.
        for name, field in reversed(settings.model_fields.items()):
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
            command = click.option(
                flag(name),
                name,
                type=click.Choice(choices) if choices else field.annotation,
                is_flag=field.annotation is bool,
                default=field.default,
                envvar=environment_variable(name),
                help=field.description,
                show_default=True,
                show_envvar=True,
            )(command)
        return command

    return decorate


def load(settings: type[S], values: dict[str, Any]) -> S:
    """Builds `settings` from what click has read.

    Raises:
        click.BadParameter: a value is out of range; the message names the flag.
    """
    try:
        return settings(**values)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
    hint = ", ".join(repr(flag(str(name))) for name in problem["loc"])
    raise click.BadParameter(problem["msg"].removeprefix("Value error, "), param_hint=hint)
