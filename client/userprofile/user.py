"""A user as the service returns it, and the read mask that selects its fields."""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from userprofile.v1 import user_profile_pb2 as user_pb


@dataclass(frozen=True, slots=True)
class User:
    """A public user profile. A field is None if it has no value or wasn't requested; "" is a value."""

    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None
    """Whether the account is disabled."""


_MAX_MASK_BYTES = 4096
"""A bound with which every request fits the server's limit. A refusal for its size would be retried for seconds."""


def read_mask(fields: Iterable[str] | None) -> FieldMask | None:
    """Returns the mask for these fields and the username, which is always returned; None for all fields.

    Raises:
        TypeError: `fields` is a single string, or doesn't hold strings.
        ValueError: a field isn't valid Unicode, or the fields are too long to be those of `User`.
    """
    if fields is None:
        return None
    if isinstance(fields, str | bytes):
        raise TypeError("expected an iterable of field names, got a single string")
    names = ["username", *fields]  # a mask without paths would request all fields
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a field is a string, not {type(name).__name__}")
    mask = FieldMask(paths=dict.fromkeys(names))
    if mask.ByteSize() > _MAX_MASK_BYTES:
        raise ValueError("the names of the fields are too long")
    return mask


def from_message(message: user_pb.User) -> User:
    """Returns the user in `message`."""
    return User(
        username=message.username,
        email=message.email if message.HasField("email") else None,
        full_name=message.full_name if message.HasField("full_name") else None,
        disabled=message.disabled if message.HasField("disabled") else None,
    )
