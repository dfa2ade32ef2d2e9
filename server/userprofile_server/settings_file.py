"""The settings file: TOML, a table for each group. It contains no secrets, so that anybody may read and copy it."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from userprofile.environment import clean, nearest, problem_of_text, read_text
from userprofile.printable import printable, shortened
from userprofile_server.settings_base import Setting

Value = bool | int | float | str

_IN_WORDS: dict[type[Value], str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string in quotation marks",
}
_MAX_KEY = 80
_MAX_INT = 2**53  # larger integers aren't exact as floats, and far larger ones overflow


def read_settings(path: Path, known: Sequence[Setting]) -> dict[str, Value]:
    """Returns the file's values, by the settings' names. Strings are stripped; an empty string counts as not set.

    Raises:
        ValueError: the file can't be read, isn't TOML, or has a key that isn't in `known` or an invalid value. The text
            is for operators, with the path and the key, and without any value.
    """
    text = read_text(path, "settings file")
    try:
        return _values(tomllib.loads(text), known)
    except _WrongSettingsError as error:
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} isn't a settings file: its values are nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or Python's error for a number with thousands of digits
        raise ValueError(f"{path} isn't TOML: {error}") from None


class _WrongSettingsError(Exception):
    pass


def _values(document: dict[str, Any], known: Sequence[Setting]) -> dict[str, Value]:
    tables = list(dict.fromkeys(setting.table for setting in known))
    paths = [setting.path for setting in known]
    values: dict[str, Value] = {}
    for table, content in document.items():
        if table not in tables:
            if isinstance(content, dict):
                raise _unknown("table", _quoted(table), nearest(table[:_MAX_KEY], tables, str), tables)
            raise _unknown("key", _quoted(table), nearest(table[:_MAX_KEY], paths, _key_of), tables)
        if not isinstance(content, dict):
            raise _WrongSettingsError(f"{table} has to be a table, [{table}]")
        for key, value in content.items():
            setting = next((each for each in known if (each.table, each.key) == (table, key)), None)
            if setting is None:
                near = nearest(f"{table}.{key[:_MAX_KEY]}", paths, _key_of)
                beside = [each.path for each in known if each.table == table]
                raise _unknown("key", f"{table}.{_quoted(key)}", near, beside)
            if (checked := _checked(setting, value)) is not None:
                values[setting.name] = checked
    return values


def _checked(setting: Setting, value: object) -> Value | None:
    if setting.is_secret:
        raise _WrongSettingsError(
            f"{setting.path} is a secret, which this file may not hold: name a file with it by {setting.path}_file, or"
            f" set {setting.variable}"
        )
    if isinstance(value, str) and clean(value) in setting.words:
        return clean(value)
    kind = setting.kind
    if (
        setting.separator is not None
        and isinstance(value, list)
        and value
        and all(isinstance(each, str) for each in value)
    ):
        value = setting.separator.join(value)
    if kind is float and type(value) is int and abs(value) < _MAX_INT:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = [f'"{word}"' for word in setting.words]
        allowed = " or ".join([_IN_WORDS[kind], *words, *(["an array of such"] if setting.separator else [])])
        raise _WrongSettingsError(f"{setting.path} has to be {allowed}")
    if not isinstance(value, str):
        return value
    value = clean(value)
    if value and (problem := problem_of_text(value)):
        raise _WrongSettingsError(f"{setting.path} {problem}")
    return value or None


def _key_of(path: str) -> str:
    return path.rpartition(".")[2]


def _unknown(what: str, name: str, near: str | None, known: Sequence[str]) -> _WrongSettingsError:
    hint = f"the nearest known one is {near}" if near else f"known are {', '.join(known)}"
    return _WrongSettingsError(f"unknown {what} {name}; {hint}")


def _quoted(key: str) -> str:
    """Returns a key as written in the file. A key with a dot is quoted: unquoted, it would be a key of a table."""
    shown = printable(shortened(key, _MAX_KEY))
    return shown if re.fullmatch(r"[A-Za-z0-9_-]+", shown) else f'"{shown}"'
