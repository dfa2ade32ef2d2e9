"""What a user is: `User` is what anyone may know, `UserInDB` is what is stored."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

USERPROFILE_DOC_TYPE: Literal["userprofile"] = "userprofile"


class User(BaseModel):
    """The public profile. A field that is None was absent or null in the document.

    Strict: a document with `"disabled": "yes"` is corrupt, not true. Other fields of a document
    (`admin_roles` and the like) are left alone and never shown.
    """

    # hide_input_in_errors is a second bolt only: it cleans str(ValidationError), not errors().
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None


class UserInDB(User):
    """The profile as it is stored. For writing only: the read path never makes one."""

    type: Literal["userprofile"] = USERPROFILE_DOC_TYPE
    hashed_password: str | None = None  # who signs in elsewhere has none
