"""A supervisor with short waits, whose servers are small programs that only say what servers say (fake_server.py)."""

import functools
import sys
from collections.abc import Sequence

from userprofile_server import process, signals
from userprofile_server.processes import supervisor
from userprofile_server.processes.plan import Plan
from userprofile_server.processes.supervisor import Supervisor
from userprofile_server.settings import ServerSettings, Settings
from userprofile_server.stores.settings import StoreSettings
from userprofile_server.telemetry.logs import LogSettings

COMMAND = (sys.executable, "-c", "import tests.fake_server as fake; fake.main()")


def plan(does: str) -> Plan:
    server = ServerSettings(listen="127.0.0.1:0", processes=2, drain_delay=0, drain_grace=0.5)
    return Plan(Settings(store=StoreSettings(url=f"sqlite:///{does}"), server=server), 2)


def main() -> None:
    supervise(*sys.argv[1:])


def supervise(does: str, *later: str, command: Sequence[str] = COMMAND) -> None:
    """The main function of the supervisor: servers that do one thing, and another one after each SIGHUP."""
    signals.end_at_once_on_interrupt()
    waits = {"MARGIN_SECONDS": 0.5, "_FIRST_PAUSE": 0.01, "_LONGEST_PAUSE": 0.05}
    # Not a matter of time here: on a busy machine both the report and the end of a server are seen late.
    waits["_PROVEN_SECONDS"] = 0.0 if does == "crash when proven" else 3600.0
    if "well" not in later:  # that one may take a while to start
        waits["_READY_SECONDS"] = 0.5
    if "hangs" in does:
        waits["_PING_SECONDS"] = 0.2
    vars(supervisor).update(waits)
    plans = iter([plan(each) for each in later])

    def work(events: signals.Events) -> int:
        return Supervisor(plan(does), events, reload=functools.partial(next, plans), command=command).run()

    process.run(work, log=LogSettings(format="text"), name="supervisor")
