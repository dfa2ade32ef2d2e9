"""`python -m tests.behaviour` serves what `table.json` is about, prints its address and waits for its input to end."""

import sys

from tests.behaviour import serve

with serve() as address:
    print(address, flush=True)
    sys.stdin.read()
