"""The limit of file descriptors: each connection takes one, and the default limit is low."""

import resource
from contextlib import suppress


def allow(count: int) -> int:
    """Raises this process's limit to `count` descriptors if the system permits. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return count
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower limit that it doesn't report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
