"""`python -m tests.client_conformance` runs the servers that clients are tested on, and ends with its input.

It prints what the clients' tests need, as a line for a shell.
"""

import sys
import tempfile
from pathlib import Path

from tests.client_conformance import TABLE, identities, serve

with tempfile.TemporaryDirectory() as folder, serve() as address, identities.serve(Path(folder)):
    variables = {
        "USERPROFILE_TARGET": address,
        "USERPROFILE_CONFORMANCE_TABLE": TABLE,
        "USERPROFILE_IDENTITIES": folder,
    }
    print("export", *(f"{name}={value}" for name, value in variables.items()), flush=True)
    sys.stdin.read()
