"""The trace of which a call is a part, as its caller says it in `traceparent` (https://www.w3.org/TR/trace-context/)."""

import re

METADATA_KEY = "traceparent"

# Version, trace id, parent id, flags. Version ff is invalid, and so are ids of zeros; later versions may have more.
_TRACEPARENT = re.compile(
    r"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


def trace_id_of(traceparent: str) -> str | None:
    """Returns the trace id; None if `traceparent` is not valid."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None else found[1]
