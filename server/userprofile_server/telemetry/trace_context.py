"""The trace of which a call is a part, as its caller says it in `traceparent` (https://www.w3.org/TR/trace-context/)."""

import re

METADATA_KEY = "traceparent"

# Version, trace id, parent id, flags. Version ff is invalid, and so are ids of zeros; later versions may have more.
_TRACEPARENT = re.compile(
    r"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


def is_valid(traceparent: str) -> bool:
    """Returns whether this is a traceparent: its trace id is then `traceparent[3:35]`."""
    return _TRACEPARENT.fullmatch(traceparent) is not None
