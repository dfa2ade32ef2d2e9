"""Attacks on a small scale: everybody else is served, and the server's memory has a bound. See `make test-floods`."""

import signal
from pathlib import Path

import grpc
import pytest

from tests.attacks import ATTACKS, STARVING, attacking
from tests.support import GetUser, ServerProcess
from tests.test_health import SERVING, check

MOST_MIB = 800
"""What a server may take more than before, on this scale, on a busy machine too. It is about 60 when it has started.

Endless headers took up to 600: as much as gRPC's core reads before it looks at it.
"""


def resident_mib(pid: int) -> float:
    """The memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def served(address: str) -> None:
    """Somebody connects, and is served."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        for _ in range(10):
            assert GetUser(channel)("johndoe", wait_for_ready=True)
        assert check(channel) == SERVING


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served(user_store_url: str, name: str) -> None:
    _, scale, _ = ATTACKS[name]
    with ServerProcess(user_store_url) as server:
        before = resident_mib(server.pid)
        with attacking(name, server.address, scale):
            for _ in range(0 if name in STARVING else 4):
                served(server.address)
            assert resident_mib(server.pid) - before < MOST_MIB
        served(server.address)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "Traceback" not in server.stderr
