"""Tests see the same whatever shell they are started from: what it has set is taken away before anything reads it.

Programs that tests start inherit what is left. A setting that a test is about, it gives to its program itself.
"""

import os
import signal
import threading
import time

PREFIXES = ("USERPROFILE_", "TEST_COUCHBASE", "PYTHON", "GRPC_", "PYCBC_", "LC_", "CLICOLOR", "MAKE")
NAMES = ("BASH_ENV", "CDPATH", "ENV", "FORCE_COLOR", "LANGUAGE", "MFLAGS", "NO_COLOR", "PROMPT_COMMAND")
PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "no_grpc_proxy")
"""gRPC reads these, even for this very machine. What tests of `make test-…` download with reads capitals too."""
SET = {"LANG": "C.UTF-8", "TERM": "dumb", "COLUMNS": "80", "LINES": "24", "TZ": "UTC"}
CLUSTER = ("TEST_COUCHBASE", "USERPROFILE_SERVER_COUCHBASE_")
"""What says where a real cluster is. `make test-couchbase` alone wants it."""


def forget_the_shell() -> None:
    """Makes environment, time zone, umask and signals the same for everybody."""
    for name, value in list(os.environ.items()):
        if name in PROXIES:
            os.environ.setdefault(name.upper(), value)
        if name.startswith(CLUSTER) and "TEST_ON_COUCHBASE" in os.environ:
            continue
        if name.startswith(PREFIXES) or name in NAMES or name in PROXIES:
            del os.environ[name]
    os.environ.update(SET)
    time.tzset()
    os.umask(0o022)
    if threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in signal.valid_signals():
            if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
                # As by nohup. It is still ignored here, but a handler isn't inherited: programs start with the default.
                signal.signal(number, lambda *_: None)
