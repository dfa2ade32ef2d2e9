"""`python -m tests.client_conformance` runs the servers that clients are tested on, and ends with its input.

It prints what the clients' tests need, as a line for a shell.
"""

import sys
import tempfile
from pathlib import Path

from tests.client_conformance import identities, serve

with tempfile.TemporaryDirectory() as folder, serve() as address, identities.serve(Path(folder)):
    print(f"export USERPROFILE_TARGET={address} USERPROFILE_IDENTITIES={folder}", flush=True)
    sys.stdin.read()
