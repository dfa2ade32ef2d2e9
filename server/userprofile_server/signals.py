"""Signals: which ones stop the process, and how."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_MEANINGLESS = [
    number
    for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGPIPE", "SIGIO", "SIGPWR", "SIGSTKFLT")
    if (number := getattr(signal, name, None)) is not None
]
"""Signals to ignore. Like the real-time signals, they mean nothing here, but by default would kill the process."""


EXIT_FAILED = 3
"""The exit status if the store, the address or standard output can't be used, or for a bug."""


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by a signal that stops the command."""

    def __init__(self, number: int) -> None:
        """Takes the signal's number."""
        super().__init__()
        self.exit_status = 128 + number
        """The exit status that a shell reports for a process killed by this signal."""


def end_at_once_on_interrupt() -> None:
    """Makes Ctrl-C end the process at once, until another handler is set, and in a container SIGTERM too.

    Python would raise KeyboardInterrupt, with a traceback, and only after a blocking library call has returned. The
    default action would do, but not for the first process of a container: Linux doesn't take it for PID 1, so that a
    container that is stopped while it starts would hang until it is killed.
    """
    if os.getpid() == 1:
        _handle([signal.SIGTERM, signal.SIGINT], lambda number, _: end_process(128 + number))
    elif signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def raising() -> Iterator[Callable[[], None]]:
    """Makes SIGTERM, SIGINT and SIGHUP raise `Interrupted`, once: a second one kills the process.

    Yields a function that disables this. After it was called, the first signal has no effect until the block ends, so
    that a finished result is still reported.
    """
    raises = True

    def interrupt(number: int, _frame: object) -> None:
        _restore(before)
        if raises:
            raise Interrupted(number)

    def stop_raising() -> None:
        nonlocal raises
        raises = False

    before = _handle([signal.SIGTERM, signal.SIGINT, signal.SIGHUP], interrupt)
    try:
        yield stop_raising
    finally:
        _restore(before)


class Events:
    """The events that a server's main thread waits for: signals that stop it, and wake-ups by other threads.

    Uses a socket, because a signal that arrives just before a lock is acquired wouldn't interrupt the wait.
    """

    def __init__(self) -> None:
        """Installs handlers for all signals that would kill the process, except those of a crash."""
        self._receiving, self._sending = socket.socketpair()
        self._sending.setblocking(False)
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        _handle(_STOPPING, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)  # a parent may have blocked them
        real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if hasattr(signal, "SIGRTMIN") else ()
        for number in (*_MEANINGLESS, *real_time):
            signal.signal(number, signal.SIG_IGN)

    def fileno(self) -> int:
        """Returns a descriptor for polling. Once it is readable, `wait` returns at once."""
        return self._receiving.fileno()

    @contextmanager
    def inherited_blocked(self) -> Iterator[None]:
        """Blocks stopping signals while a child is started. They stay pending until it has its own `Events`."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def watch_children(self) -> None:
        """Makes `wait` return SIGCHLD too, after one or several children have ended."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # if ignored, as some parents leave it, ends would get lost
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])  # a parent may have blocked it

    def wait_writable(self, descriptor: int) -> bool:
        """Waits until `descriptor` is writable. Returns False if an event comes first."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.register(self._receiving, select.POLLIN)
        return all(ready == descriptor for ready, _ in poll.poll())

    def wake(self) -> None:
        """Wakes up the main thread. Called by other threads."""
        self._sending.send(b"\0")  # no signal has this number

    def wait(self) -> signal.Signals | None:
        """Returns the next signal that stops the server (or SIGCHLD, if watched), or None for a `wake`."""
        number = self._receiving.recv(1)[0]
        return signal.Signals(number) if number else None


def has_terminal() -> bool:
    """Whether the process has a controlling terminal. A terminal that closes sends SIGHUP, and is gone then."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _handle(numbers: tuple[int, ...] | list[int], handler: Callable[..., object]) -> dict[int, object]:
    """Sets a handler, and returns the previous ones. Signals that the parent ignores (`nohup`, `&`) stay ignored."""
    before: dict[int, object] = {}
    for number in numbers:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def end_process(status: int) -> NoReturn:
    """Exits without Python's finalization, which can wait for libraries' threads, or crash in them."""
    os._exit(status)
