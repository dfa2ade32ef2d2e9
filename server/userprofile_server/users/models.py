"""The models of a user: `User` is the public profile, `UserInDB` the stored one."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

USERPROFILE_DOC_TYPE: Literal["userprofile"] = "userprofile"


class User(BaseModel):
    """The public profile. A field that is None was absent or null in the document.

    Strict: a document with `"disabled": "yes"` is corrupt, not true. Other fields of a document
    (`admin_roles` and the like) are ignored and never shown.
    """

    # hide_input_in_errors is defence in depth: it cleans str(ValidationError), not errors().
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None


class UserInDB(User):
    """The stored profile. For writing only: the read path never creates one."""

    type: Literal["userprofile"] = USERPROFILE_DOC_TYPE
    hashed_password: str | None = None  # None for a user who signs in elsewhere
