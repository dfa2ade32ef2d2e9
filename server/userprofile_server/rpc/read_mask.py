"""Read masks: the fields of a user that a caller requests (https://google.aip.dev/157) and may see."""

from contextvars import ContextVar

from google.protobuf.field_mask_pb2 import FieldMask

from userprofile.printable import shortened
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile_server.errors import FieldNotAllowedError, InvalidReadMaskError

visible_fields: ContextVar[frozenset[str] | None] = ContextVar("visible_fields", default=None)
"""The fields that the caller of this call may see, always with the username; None for all."""

_EVERYTHING = "*"
_FIELDS = tuple(user_pb.User.DESCRIPTOR.fields_by_name)
_PATHS = frozenset((*_FIELDS, _EVERYTHING))


def fields_of(mask: FieldMask, visible: frozenset[str] | None) -> frozenset[str] | None:
    """Returns the fields of User that `mask` names, always with the username; None for all fields.

    For an empty mask, or one with `*`, returns `visible`: the fields that the caller may see; see `visible_fields`.

    Raises:
        InvalidReadMaskError: a path names no field of the message.
        FieldNotAllowedError: a path names a field that the caller may not see.
    """
    paths = frozenset(mask.paths)
    if not paths <= _PATHS:
        unknown = next(path for path in mask.paths if path not in _PATHS)
        raise InvalidReadMaskError(f"must name fields of User ({', '.join(_FIELDS)}), not {shortened(unknown, 50)!r}")
    if not paths or _EVERYTHING in paths:
        return visible
    fields = paths | {"username"}
    if visible is not None and not fields <= visible:
        raise FieldNotAllowedError(f"must not name {next(path for path in mask.paths if path not in visible)}")
    return fields
