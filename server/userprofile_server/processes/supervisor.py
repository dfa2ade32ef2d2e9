"""The supervisor of several server processes on one port: starts, watches, restarts, replaces and ends them.

One thread decides, without locks: it waits for signals, the servers' reports and its own deadlines, and checks
everything after each event. A second thread only rereads the settings. The supervisor imports neither gRPC nor a
store's driver (tests/test_supervisor.py), so that it stays small and unaffected by their bugs.
"""

import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

import click

from userprofile_server import signals
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.listeners import listed, parse_listeners
from userprofile_server.processes.channel import CANCEL, DRAIN, HAND_OVER, LISTEN, MARGIN_SECONDS
from userprofile_server.processes.measurements import Measurements
from userprofile_server.processes.plan import Plan
from userprofile_server.processes.spawned import COMMAND, Spawned
from userprofile_server.signals import EXIT_FAILED
from userprofile_server.standard_streams import OutputError
from userprofile_server.telemetry.metrics_server import MetricsServer

_log = logging.getLogger(__name__)

_STDOUT = 1

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a server that has ended is restarted; doubled with each failure in a row."""

_PROVEN_SECONDS = 10.0
"""Seconds of listening after which a server counts as healthy, and its next pause is the first again."""

_TRIES = 6
"""How often in a row every server may fail, while none serves, before the supervisor gives up: about 10 seconds."""

_READY_SECONDS = 30.0
"""Seconds that a server with new settings may take to become ready."""

_SIGNAL_SECONDS = 0.1
"""Seconds to wait, after a server was signalled, for the same signal to the supervisor: then it is meant for all."""

_PING_SECONDS = 5.0
"""Seconds between pings."""

_LATE, _HANGING = 2, 12
"""The number of checks without a response after which that is logged, and after which the server is killed."""


@dataclass
class _Slot:
    """The slot of one server: its current process, and the plan for the next one."""

    number: int
    plan: Plan
    server: Spawned | None = None
    failures: int = 0
    start_at: float = 0.0


@dataclass
class _Rollout:
    """A rolling restart: the slots whose server is still to be replaced, and the replacement that is starting."""

    plan: Plan
    slots: list[_Slot]
    surplus: list[_Slot]
    replacement: Spawned | None = None
    replaced: Spawned | None = None
    give_up_at: float = 0.0


class Supervisor:
    """Call `run`."""

    def __init__(
        self,
        plan: Plan,
        events: signals.Events,
        *,
        reload: Callable[[], Plan],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`reload` rereads the plan and may raise click.UsageError. `command` starts a server process."""
        self._server_settings = plan.settings.server
        self._slots = [_Slot(number, plan) for number in range(1, plan.processes + 1)]
        self._events = events
        self._reload = reload
        self._command = command
        self._had_terminal = signals.has_terminal()
        self._servers: dict[int, Spawned] = {}  # all running servers, by process id
        self._reserved: list[socket.socket] = []
        self._bound: dict[str, str] = {}
        """The address settings, with the ports that were bound."""
        self._started = False  # all servers have listened once
        self._announced = False  # the address was printed
        self._was_ready = False
        self._ping_at = float("-inf")
        self._late: set[Spawned] = set()
        self._reload_wanted = False
        self._reading: Future[Plan] | None = None
        self._rollout: _Rollout | None = None
        self._status: int | None = None  # the exit status; set when the supervisor begins to end
        self._measurements = Measurements() if self._server_settings.metrics_listen is not None else None

    def run(self) -> int:
        """Serves until a signal ends it, and returns the exit status."""
        try:
            self._reserve()
            metrics_server = self._serve_metrics()
        except ListenError as error:
            click.echo(f"error: {error}", err=True)
            return EXIT_FAILED
        self._events.watch_children()
        _log.info("supervising %d processes on %s", len(self._slots), self._bound["listen"])
        while self._status is None or self._servers:
            self._start_servers()
            self._wait()
            self._reap()
            self._let_listen()
            self._report()
            self._hand_over_signalled()
            self._roll_on()
            self._ping()
            self._kill_overdue()
            self._measure()
        if metrics_server is not None:
            metrics_server.stop()
        if self._status == 0:
            _log.info("stopped")
        return self._status

    def _reserve(self) -> None:
        """Takes all ports. Raises ListenError."""

        def reserve(address: ListenAddress) -> ListenAddress:
            bound, sockets = address.reserve()
            self._reserved += sockets
            return bound

        settings = self._server_settings
        self._bound["listen"] = listed([listener.at(reserve(listener.address)) for listener in settings.listeners])
        if settings.health_listen is not None:
            self._bound["health_listen"] = str(reserve(ListenAddress.parse(settings.health_listen)))

    def _serve_metrics(self) -> MetricsServer | None:
        """Serves the metrics on a thread, if they are wanted. Raises ListenError."""
        if self._measurements is None or self._server_settings.metrics_listen is None:
            return None
        metrics_server = MetricsServer(
            ListenAddress.parse(self._server_settings.metrics_listen), self._measurements.page
        )
        metrics_server.start()
        return metrics_server

    def _measure(self) -> None:
        if self._measurements is not None:
            self._measurements.measure(self._servers.values())
            self._measurements.publish(self._servers.values(), self._current())

    def _start_servers(self) -> None:
        if self._status is not None:
            return
        for slot in self._slots:
            if slot.server is None and time.monotonic() >= slot.start_at:
                try:
                    slot.server = self._spawn(slot.number, slot.plan)
                except OSError as error:
                    self._failed(slot, f"process {slot.number} can't be started: {error.strerror}")

    def _spawn(self, number: int, plan: Plan) -> Spawned:
        """Starts a server. Raises OSError if the system can't start another process."""
        server_settings = plan.settings.server.model_copy(update=self._bound)
        with self._events.inherited_blocked():
            server = Spawned(
                number,
                plan.settings.model_copy(update={"server": server_settings}),
                cores=plan.cores_of(number),
                patient=any(each.serves for each in self._current()),
                command=self._command,
            )
        self._servers[server.pid] = server
        return server

    def _current(self) -> list[Spawned]:
        """Returns the servers in the slots."""
        return [slot.server for slot in self._slots if slot.server is not None]

    def _wait(self) -> None:
        """Waits for the next event and records it."""
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        by_descriptor = {server.channel.fileno(): server for server in self._servers.values() if server.channel}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        announcing = self._status is None and self._started and not self._announced
        if announcing:
            poll.register(_STDOUT, select.POLLOUT)
        pause = max(0.0, self._next_deadline() - time.monotonic())
        for ready, _ in poll.poll(None if pause == float("inf") else pause * 1000 + 1):
            if ready == self._events.fileno():
                self._signalled(self._events.wait())
            elif ready == _STDOUT and announcing:
                self._announce()
            else:
                by_descriptor[ready].receive()
                self._started = self._started or self._all_listen()
                if by_descriptor[ready].failed and not self._started:
                    self._give_up(by_descriptor[ready].failure)

    def _next_deadline(self) -> float:
        deadlines = [server.kill_at for server in self._servers.values()]
        if self._measurements is not None:
            deadlines.append(self._measurements.next_at)
        if self._status is None:
            deadlines.append(self._ping_at)
            deadlines += [each.signalled_at + _SIGNAL_SECONDS for each in self._servers.values() if not each.ending]
            deadlines += [slot.start_at for slot in self._slots if slot.server is None]
            if self._rollout is not None and self._rollout.replacement is not None:
                deadlines.append(self._rollout.give_up_at)
        return min(deadlines, default=float("inf"))

    def _signalled(self, number: signal.Signals | None) -> None:
        if number is None or number == signal.SIGCHLD:
            return
        if number == signal.SIGHUP and self._status is not None:
            pass  # a closing terminal may send several
        elif number == signal.SIGHUP and not (self._had_terminal and not signals.has_terminal()):
            self._reload_wanted = True
            if not self._started:
                _log.info("SIGHUP: waits until all processes listen")
            elif self._reading is not None or self._rollout is not None:
                _log.info("SIGHUP: waits for the end of the one before")
        elif self._status is None:
            if self._started:
                _log.info("%s: draining: calls in progress finish", number.name)
            else:
                _log.info("%s: stopped before listening", number.name)
            self._end(0, HAND_OVER if number == signal.SIGINT else DRAIN)  # no delay for a person at a terminal
        else:
            self._end(self._status, CANCEL)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                # Any child: as PID 1 of a container, the supervisor also inherits orphans.
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if (server := self._servers.pop(pid, None)) is not None:
                    server.ended(os.waitstatus_to_exitcode(status))
                    if self._measurements is not None:
                        self._measurements.ended(server, restarted=self._is_restarted(server))
                    self._ended(server, os.waitstatus_to_exitcode(status))

    def _is_restarted(self, server: Spawned) -> bool:
        """Whether another server is started in place of one that has ended."""
        return self._status is None and any(slot.server is server for slot in self._slots)

    def _ended(self, server: Spawned, exit_code: int) -> None:
        if self._rollout is not None and server is self._rollout.replacement:
            self._rollout.replacement = None
            self._stop_rollout(f"{server} {_cause(server, exit_code)}")
        slot = next((slot for slot in self._slots if slot.server is server), None)
        if slot is None or self._status is not None:
            return
        if server.failed and not self._started:
            self._give_up(server.failure)
            return
        slot.server = None
        if time.monotonic() - server.listening_since > _PROVEN_SECONDS:
            slot.failures = 0
        self._failed(slot, f"{server} {_cause(server, exit_code)}")

    def _failed(self, slot: _Slot, what: str) -> None:
        """Schedules a restart in this slot after a pause, or gives up."""
        pause = _pause(slot.failures)
        slot.failures += 1
        slot.start_at = time.monotonic() + pause
        serving = any(server.address is not None for server in self._current())
        if not serving and all(slot.failures >= _TRIES for slot in self._slots):
            _log.error("%s", what)
            self._give_up(f"no server process stays up; the last one: {what}")
        else:
            _log.error("%s; next try in %g s", what, pause)

    def _give_up(self, reason: str | None) -> None:
        """Ends with an error. `reason` is None if it was logged already."""
        if self._status is None:
            if reason is not None:
                click.echo(f"error: {reason}", err=True)
            self._end(EXIT_FAILED, CANCEL)

    def _end(self, status: int, command: str = DRAIN) -> None:
        """Ends all servers. The supervisor ends with the last one."""
        self._status = status
        self._rollout = None
        for server in self._servers.values():
            self._end_server(server, command)

    def _end_server(self, server: Spawned, command: str) -> None:
        limit = 0.0 if command == CANCEL else server.settings.server.longest_drain
        server.end(command, limit + MARGIN_SECONDS)

    def _ping(self) -> None:
        """Pings the servers, and kills those that hang: the kernel would still give them connections.

        Counts checks at which a server could have responded, not time: a server that waits for a core, or a machine
        that was suspended, must not count as hanging.
        """
        if self._status is not None or time.monotonic() < self._ping_at:
            return
        self._ping_at = time.monotonic() + _PING_SECONDS
        for server in self._servers.values():
            if server.address is None or server.ending:
                continue
            if server in self._late and server.unanswered == 0:
                self._late.remove(server)
                _log.info("%s responds again", server)
            server.ping()
            if server.unanswered == _LATE + 1:
                self._late.add(server)
                limit = _HANGING * _PING_SECONDS
                _log.warning("%s does not respond; it is killed if that lasts for %g s", server, limit)
            elif server.unanswered > _HANGING:
                _log.error("%s hangs and is killed, with the calls that it still had", server)
                server.kill()
        self._late &= set(self._servers.values())

    def _kill_overdue(self) -> None:
        for server in self._servers.values():
            if time.monotonic() >= server.kill_at:
                _log.error("%s has not ended in time and is killed, with the calls that it still had", server)
                server.kill()

    def _all_listen(self) -> bool:
        return all(slot.server is not None and slot.server.address is not None for slot in self._slots)

    def _announce(self) -> None:
        self._announced = True
        try:
            click.echo("\n".join(f"listening on {listener}" for listener in parse_listeners(self._bound["listen"])))
        except OutputError as error:
            self._give_up(str(error))

    def _let_listen(self) -> None:
        """If no server has its store, tells those that wait for it to listen without it."""
        if not any(server.serves for server in self._current()):
            for server in self._current():
                if not server.told_to_listen:
                    server.told_to_listen = True
                    server.tell(LISTEN)

    def _hand_over_signalled(self) -> None:
        """Ends servers that were signalled individually. They are restarted when they have ended."""
        for server in self._servers.values():
            if time.monotonic() >= server.signalled_at + _SIGNAL_SECONDS and not server.ending:
                _log.warning("%s has got a signal to end", server)
                self._end_server(server, HAND_OVER)

    def _report(self) -> None:
        ready = len(self._current()) == len(self._slots) and all(server.serves for server in self._current())
        if ready and not self._was_ready:
            _log.info("ready: all %d processes", len(self._slots))
        self._was_ready = ready

    def _roll_on(self) -> None:
        """Continues a rolling restart as far as possible now."""
        while self._status is None and self._next_step():
            pass

    def _next_step(self) -> bool:
        """Takes one step of a rolling restart. Returns False if it has to wait."""
        rollout = self._rollout
        if rollout is None:
            if self._reading is not None:
                if not self._reading.done():
                    return False
                self._begin_rollout(self._reading)
                self._reading = None
            elif self._reload_wanted and self._started:
                self._reload_wanted = False
                self._reading = self._read_settings()
            else:
                return False
        elif rollout.replacement is not None:
            return self._replace(rollout, rollout.replacement)
        elif rollout.replaced is not None:
            if self._servers.get(rollout.replaced.pid) is rollout.replaced:
                return False
            rollout.replaced = None
        elif rollout.slots:
            try:
                rollout.replacement = self._spawn(rollout.slots[0].number, rollout.plan)
            except OSError as error:
                self._stop_rollout(f"no process can be started: {error.strerror}")
            rollout.give_up_at = time.monotonic() + _READY_SECONDS
        else:
            self._finish_rollout(rollout)
        return True

    def _replace(self, rollout: _Rollout, replacement: Spawned) -> bool:
        """Puts the replacement into its slot if it is ready, or gives up on it. Returns False if it has to wait."""
        if replacement.serves:
            slot = rollout.slots.pop(0)
            if slot not in self._slots:
                self._slots.append(slot)
            rollout.replaced, slot.server, rollout.replacement = slot.server, replacement, None
            slot.plan, slot.failures = rollout.plan, 0
            if rollout.replaced is not None:
                self._end_server(rollout.replaced, HAND_OVER)
        elif time.monotonic() >= rollout.give_up_at:
            rollout.replacement = None
            self._end_server(replacement, CANCEL)
            self._stop_rollout(f"{replacement} has not become ready in {_READY_SECONDS:g} s")
        else:
            return False
        return True

    def _read_settings(self) -> Future[Plan]:
        """Reads the settings in the background: the file may be a pipe, or on a file server that doesn't respond."""
        _log.info("SIGHUP: reading the settings")
        reading: Future[Plan] = Future()

        def read() -> None:
            try:
                reading.set_result(self._reload())
            except BaseException as error:  # noqa: BLE001, raised by `result`
                reading.set_exception(error)
            self._events.wake()

        threading.Thread(target=read, name="settings", daemon=True).start()
        return reading

    def _begin_rollout(self, reading: Future[Plan]) -> None:
        try:
            plan = reading.result()
            for name in ("listen", "health_listen", "metrics_listen"):
                if getattr(plan.settings.server, name) != getattr(self._server_settings, name):
                    raise click.UsageError(f"--{name.replace('_', '-')} has changed, which takes a new start")
        except click.UsageError as error:
            _log.error("SIGHUP: nothing changes: %s", error.format_message())
            return
        _log.info("SIGHUP: replacing all processes, one after the other, with newly read settings")
        more = [_Slot(number, plan) for number in range(len(self._slots) + 1, plan.processes + 1)]
        self._rollout = _Rollout(plan, [*self._slots[: plan.processes], *more], self._slots[plan.processes :])

    def _stop_rollout(self, reason: str) -> None:
        assert self._rollout is not None
        old = ", ".join(str(slot.number) for slot in self._rollout.slots if slot in self._slots)
        _log.error("SIGHUP: stopped: %s; not replaced: %s of %d processes", reason, old or "none", len(self._slots))
        self._rollout = None

    def _finish_rollout(self, rollout: _Rollout) -> None:
        for slot in rollout.surplus:
            self._slots.remove(slot)
            if slot.server is not None:
                self._end_server(slot.server, HAND_OVER)
        logging.getLogger("userprofile_server").setLevel(rollout.plan.settings.log.level.upper())
        self._rollout = None
        _log.info("SIGHUP: all %d processes have the new settings", len(self._slots))


def _pause(failures: int) -> float:
    """Returns the seconds before the next restart. `failures` counts those in a row before this one."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10))  # bounded, because 2.0 ** 1024 overflows


def _cause(server: Spawned, exit_code: int) -> str:
    """Describes why a server has ended."""
    if server.failure is not None:
        return f"failed: {server.failure}"
    if exit_code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-exit_code).name}"
        return f"was ended by signal {-exit_code}"
    return f"has ended with exit status {exit_code}"


def supervise(plan: Plan, reload: Callable[[], Plan], events: signals.Events) -> int:
    """Serves with several processes until a signal ends it, and returns the exit status; see `Supervisor`."""
    return Supervisor(plan, events, reload=reload).run()
