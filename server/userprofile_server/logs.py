"""Logs: one line an event on stderr, each with the request id of the call that it belongs to."""

import logging

from userprofile_server.rpc import request_id


def configure(level: str) -> None:
    """Sends our own logs at `level` and above, and the libraries' warnings, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"))
    handler.addFilter(_add_request_id)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("userprofile_server").setLevel(level.upper())


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.current.get()
    return True
