"""The plan of a supervisor: the settings, the number of processes, and the core of each."""

import sys
from typing import NamedTuple

from userprofile_server.processes import cores
from userprofile_server.settings import ServerSettings, Settings


class Plan(NamedTuple):
    """The result of reading flags, environment and settings file once."""

    settings: Settings
    processes: int

    def cores_of(self, number: int) -> list[int]:
        """Returns the cores to pin a process to, numbered from 1; empty for all cores.

        Each process gets its own core if there are as many cores as processes. Otherwise nothing is pinned: if there
        are more cores, another supervisor on the same machine would choose the same ones.
        """
        allowed = cores.allowed()
        if self.settings.server.pinning == "off" or self.processes == 1 or self.processes != len(allowed):
            return []
        return [allowed[number - 1]]


def plan_for(settings: Settings) -> Plan:
    """Resolves the number of processes. `auto` is one per usable core, or a single one if they can't share the port.

    Raises:
        ValueError: several processes were requested, but can't share the address or aren't supported by the system.
            The text is for operators.
    """
    return Plan(settings, _number_of_processes(settings.server))


def _number_of_processes(settings: ServerSettings) -> int:
    problem = None
    if any(listener.address.port is None for listener in settings.listeners):
        problem = "several processes can share a port, but not a Unix socket"
    elif sys.platform != "linux":
        problem = "several processes need Linux: elsewhere the system does not spread connections over them"
    if settings.processes == "auto":
        return 1 if problem else cores.usable()
    if settings.processes > 1 and problem:
        raise ValueError(problem)
    return settings.processes
