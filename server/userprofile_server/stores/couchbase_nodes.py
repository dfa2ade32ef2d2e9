"""Which nodes the SDK can't connect to. Only its log says so: it keeps the cluster's map to itself."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import couchbase

_NAME = "userprofile_server.couchbase_sdk"
_ADDRESS = re.compile(r"<\[?(?P<host>[^<>\s/]+?)\]?:(?P<port>[0-9]{1,5})> ")


class _Addresses(logging.Handler):
    """Keeps the addresses that warnings are about, and prints nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: dict[tuple[str, int], None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if match := _ADDRESS.search(record.getMessage()):
            self.seen[match["host"], int(match["port"])] = None


@contextmanager
def troubled_nodes() -> Iterator[dict[tuple[str, int], None]]:
    """Yields the host and port of each node that the SDK complains of in the meantime, in a dict that grows.

    It stays empty where the environment has the SDK log elsewhere (PYCBC_LOG_LEVEL).
    """
    logger = logging.getLogger(_NAME)
    logger.propagate = False
    handler = _Addresses()
    logger.addHandler(handler)
    with suppress(RuntimeError):
        couchbase.configure_logging(_NAME, level=logging.WARNING)
    try:
        yield handler.seen
    finally:
        logger.removeHandler(handler)
        logger.addHandler(logging.NullHandler())
