"""From settings to the command line: one option for each field, and what click has read back into settings."""

from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError

from userprofile.environment import EnvironmentOption, clean, from_environment
from userprofile_server.settings import environment_variable, flag

C = TypeVar("C", bound=Callable[..., Any])
S = TypeVar("S", bound=BaseModel)


def options(settings: type[BaseModel]) -> Callable[[C], C]:
    """Gives a click command one option for each field of `settings` that may have a flag."""

    def decorate(command: C) -> C:
        # click lists options in the reverse of the order in which they are added.
        for name, field in reversed(settings.model_fields.items()):
            option = flag(name, settings)
            if option is None:
                continue
            command = click.option(
                option,
                name,
                cls=EnvironmentOption,
                type=_click_type(field.annotation),
                is_flag=field.annotation is bool,
                default=field.default,
                envvar=environment_variable(name),
                help=field.description,
                show_default=field.default is not None,
                show_envvar=True,
            )(command)
        return command

    return decorate


def load(settings: type[S], values: dict[str, Any]) -> S:
    """Builds `settings` from what click has read, and from the environment what has no flag.

    Raises:
        click.UsageError: a value is out of range, or two of them contradict each other.
    """
    values = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
    for name in settings.model_fields:
        if flag(name, settings) is None and (value := from_environment(environment_variable(name))) is not None:
            values[name] = value
    try:
        return settings(**values)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        raise click.UsageError(message)
    name = str(problem["loc"][0])
    raise click.BadParameter(message, param_hint=repr(flag(name, settings) or environment_variable(name)))


def _click_type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation), case_sensitive=False)
    if isinstance(annotation, UnionType):
        (annotation,) = (option for option in get_args(annotation) if option is not type(None))
    return annotation if annotation in (bool, int, float) else str
