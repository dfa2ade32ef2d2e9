"""Settings on the command line: an option for each, the merged values of all sources, errors that name the source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import ValidationError

from userprofile.environment import (
    CLIENT_VARIABLES,
    SERVER_PREFIX,
    EnvironmentOption,
    clean,
    from_environment,
    unknown_variables,
)
from userprofile_server.settings import Settings
from userprofile_server.settings_base import Group, Setting, settings_in
from userprofile_server.settings_file import read_settings

C = TypeVar("C", bound=Callable[..., Any])
S = TypeVar("S", bound=Group)

CONFIG_FLAG = "--config"
CONFIG_VARIABLE = SERVER_PREFIX + "CONFIG"
CONFIG_HELP = "A settings file (TOML). Flags and environment variables override it."

_ALL = settings_in(Settings)
_VARIABLES = {setting.variable for setting in _ALL} | {CONFIG_VARIABLE} | CLIENT_VARIABLES


class _Option(EnvironmentOption):
    """The option of a setting."""

    def __init__(self, *args: Any, setting: Setting, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._setting = setting

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Names the option, and the key in the settings file if the value comes from there."""
        hint = super().get_error_hint(ctx)
        if ctx is not None and _is_from_file(ctx, self._setting):
            hint += f" (from {self._setting.path} in {ctx.params['config']})"
        return hint


def options(settings: type[Group]) -> Callable[[C], C]:
    """Gives a click command an option for each setting that may have a flag, and --config."""

    def decorate(command: C) -> C:
        # click lists options in reverse order.
        for setting in reversed(settings_in(settings)):
            if setting.flag is None:
                continue
            command = click.option(
                setting.flag,
                setting.name,
                cls=_Option,
                setting=setting,
                type=_click_type(setting),
                is_flag=setting.kind is bool,
                multiple=setting.separator is not None,
                default=setting.field.default if setting.separator is None else [setting.field.default],
                envvar=setting.variable,
                help=setting.field.description,
                show_default=setting.field.default is not None,
                show_envvar=True,
            )(command)
        return click.option(
            CONFIG_FLAG,
            cls=EnvironmentOption,
            is_eager=True,  # before the settings, whose defaults it changes
            callback=_read_config,
            envvar=CONFIG_VARIABLE,
            metavar="FILE",
            help=CONFIG_HELP,
            show_envvar=True,
        )(command)

    return decorate


def _read_config(ctx: click.Context, _: click.Parameter, value: str | None) -> Path | None:
    path = Path(value) if value and (value := clean(value)) else None
    if ctx.resilient_parsing:  # a shell wants to complete a command
        return path
    for line in unknown_variables(_VARIABLES):
        click.echo(f"warning: {line}", err=True)
    if path is not None:
        try:
            values = read_settings(path, _ALL)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        several = {setting.name for setting in _ALL if setting.separator is not None}
        ctx.default_map = {name: [value] if name in several else value for name, value in values.items()}
    return path


def load(settings: type[S], values: dict[str, Any]) -> S:
    """Builds `settings` from click's values, and from the environment for settings without a flag.

    Raises:
        click.UsageError: a value is out of range, or two of them contradict each other.
    """
    known = settings_in(settings)
    groups: dict[str, dict[str, Any]] = {setting.table: {} for setting in known}
    for setting in known:
        if setting.flag is None:
            value = from_environment(setting.variable)
        elif setting.separator is not None:
            value = setting.separator.join(values[setting.name])
        else:
            value = values[setting.name]
        groups[setting.table][setting.key] = clean(value) if isinstance(value, str) else value
    try:
        return settings(**groups)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        raise click.UsageError(message)
    table, *keys = problem["loc"]
    ctx = click.get_current_context()
    if not keys:
        in_file = [each.path for each in known if each.table == table and _is_from_file(ctx, each)]
        hint = f"; {ctx.params['config']} sets {' and '.join(in_file)}" if in_file else ""
        raise click.UsageError(message + hint)
    (setting,) = (each for each in known if (each.table, each.key) == (table, keys[0]))
    option = next((each for each in ctx.command.params if each.name == setting.name), None)
    raise click.BadParameter(message, ctx, option, None if option else repr(setting.variable))


def _is_from_file(ctx: click.Context, setting: Setting) -> bool:
    return ctx.get_parameter_source(setting.name) == ParameterSource.DEFAULT_MAP


class _NumberOrWord(click.ParamType[int | float | str]):
    """A number, or a word instead of one."""

    def __init__(self, setting: Setting) -> None:
        self._words = setting.words
        self._number = click.types.convert_type(setting.kind)
        self.name = "|".join([self._number.name, *self._words])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in self._words else self._number.convert(value, param, ctx)


def _click_type(setting: Setting) -> Any:
    if get_origin(setting.field.annotation) is Literal:
        return click.Choice(get_args(setting.field.annotation), case_sensitive=False)
    if setting.words:
        return _NumberOrWord(setting)
    return setting.kind
