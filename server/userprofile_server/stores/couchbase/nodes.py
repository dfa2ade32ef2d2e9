"""Finds the nodes to which the SDK can't connect. Only its log names them: it doesn't expose the cluster map."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import couchbase

_NAME = "userprofile_server.couchbase_sdk"
_ADDRESS = re.compile(r"<\[?(?P<host>[^<>\s/]+?)\]?:(?P<port>[0-9]{1,5})> ")


class _Addresses(logging.Handler):
    """Collects the addresses in warnings, and prints nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: dict[tuple[str, int], None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if match := _ADDRESS.search(record.getMessage()):
            self.seen[match["host"], int(match["port"])] = None


@contextmanager
def troubled_nodes() -> Iterator[dict[tuple[str, int], None]]:
    """Yields a dict that collects the host and port of each node in the SDK's warnings.

    It stays empty if PYCBC_LOG_LEVEL in the environment redirects the SDK's log.
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
