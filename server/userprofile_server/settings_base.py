"""Settings: one declaration defines the flag, the environment variable, the key of the file, help and README row.

Settings are in groups, next to the code that they configure. Each group is a table of the settings file, and a field
of `userprofile_server.settings.Settings`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo

from userprofile.environment import SERVER_PREFIX
from userprofile.printable import is_content

Seconds = Annotated[float, Field(gt=0, le=3600)]

_WITHOUT_PREFIX = {"callers", "limits", "server"}
"""Tables whose names aren't part of flags and variables."""


class Group(BaseModel):
    """Settings that belong together. Every field has a default and a description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,  # an embedder may have passed a secret as a plain string
    )

    @field_validator("*")
    @classmethod
    def _is_no_content(cls, value: object) -> object:
        """Refuses the content of a file in place of its path: as a path it would be shown, and it may be a key."""
        if isinstance(value, Path) and is_content(value):
            raise ValueError("must be the path of a file, not its content")
        return value


@dataclass(frozen=True)
class Named:
    """Annotates a field whose flag and variable aren't named after table and key."""

    name: str


@dataclass(frozen=True)
class Several:
    """Annotates a string of comma-separated values: the flag may be repeated, and the settings file has an array."""

    separator: str = ","


@dataclass(frozen=True)
class Setting:
    """One field of one group, with all its names."""

    table: str
    key: str
    field: FieldInfo

    @property
    def name(self) -> str:
        """The base of flag and variable: `couchbase_username`; settings of some tables have no prefix."""
        names = [each.name for each in self.field.metadata if isinstance(each, Named)]
        return names[0] if names else self.key if self.table in _WITHOUT_PREFIX else f"{self.table}_{self.key}"

    @property
    def is_secret(self) -> bool:
        """Whether only the variable can set it: flags are visible to all users of a machine, and files get copied."""
        return SecretStr in (self.field.annotation, *get_args(self.field.annotation))

    @property
    def separator(self) -> str | None:
        """The separator of a setting with several values; None for others."""
        return next((each.separator for each in self.field.metadata if isinstance(each, Several)), None)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are allowed instead of a number, such as `auto`."""
        parts = get_args(self.field.annotation)
        return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))

    @property
    def kind(self) -> type[bool | int | float | str]:
        """Its type in the settings file and on the command line: bool, int, float, or str for all others."""
        parts = get_args(self.field.annotation)
        kinds = {self.field.annotation, *parts, *(get_args(part)[0] for part in parts if get_origin(part) is Annotated)}
        return next((kind for kind in (bool, int, float) if kind in kinds), str)

    @property
    def flag(self) -> str | None:
        """`--couchbase-username`; None for a secret."""
        return None if self.is_secret else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`USERPROFILE_SERVER_COUCHBASE_USERNAME`."""
        return SERVER_PREFIX + self.name.upper()

    @property
    def path(self) -> str:
        """`couchbase.username`, its dotted key in TOML. The settings file must not have the key of a secret."""
        return f"{self.table}.{self.key}"


def settings_in(groups: type[Group]) -> list[Setting]:
    """Returns all settings of all groups that are fields of `groups`, in order."""
    settings = []
    for table, group in groups.model_fields.items():
        assert isinstance(group.annotation, type)
        assert issubclass(group.annotation, Group)
        settings += [Setting(table, key, field) for key, field in group.annotation.model_fields.items()]
    return settings


def to_plain(settings: Group) -> dict[str, dict[str, Any]]:
    """Returns all settings by group and key, as JSON types, for `model_validate`. Secrets are in plain text."""
    plain: dict[str, dict[str, Any]] = {}
    for setting in settings_in(type(settings)):
        value = getattr(getattr(settings, setting.table), setting.key)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        plain.setdefault(setting.table, {})[setting.key] = str(value) if isinstance(value, Path) else value
    return plain
