"""What the service tells of a user."""

from dataclasses import dataclass

from userprofile.v1 import user_profile_pb2 as pb


@dataclass(frozen=True, slots=True)
class User:
    """A public user profile. A field is None where the profile doesn't have it; an empty text is a value."""

    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None
    """Whether the account was switched off; None where nobody ever said."""


def from_message(message: pb.User) -> User:
    """Returns the user that `message` holds."""
    return User(
        username=message.username,
        email=message.email if message.HasField("email") else None,
        full_name=message.full_name if message.HasField("full_name") else None,
        disabled=message.disabled if message.HasField("disabled") else None,
    )
