"""Signals: which of them stop us, and how."""

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
"""They would end the process, in the middle of calls, and we have no use for them. The real-time signals too."""


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread where a signal is to end what it does."""

    def __init__(self, number: int) -> None:
        """Takes the signal's number."""
        super().__init__()
        self.exit_status = 128 + number
        """What a shell says of a process that the signal has ended."""


def end_at_once_on_interrupt() -> None:
    """Lets Ctrl-C end the process as it ends other programs, until something else is said.

    Python would raise KeyboardInterrupt, which prints a traceback, and only once a library that waits has returned.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def raising() -> Iterator[None]:
    """Makes SIGTERM, SIGINT and SIGHUP raise `Interrupted`, once: a second one ends the process."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        _restore(before)
        raise Interrupted(number)

    before = _handle([signal.SIGTERM, signal.SIGINT, signal.SIGHUP], interrupt)
    try:
        yield
    finally:
        _restore(before)


class Events:
    """What the main thread of a server waits for: signals that stop it, and what other threads tell it.

    By a socket, because a signal that arrives just before a lock is waited for wouldn't end the waiting.
    """

    def __init__(self) -> None:
        """Takes over the signals that would end the process, but for those of a crash."""
        self._receiving, self._sending = socket.socketpair()
        self._sending.setblocking(False)
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        _handle(_STOPPING, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)  # a parent may have blocked them
        real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if hasattr(signal, "SIGRTMIN") else ()
        for number in (*_MEANINGLESS, *real_time):
            signal.signal(number, signal.SIG_IGN)

    def wait_writable(self, descriptor: int) -> bool:
        """Waits until something can be written to `descriptor`. False if an event comes before that."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.register(self._receiving, select.POLLIN)
        return all(ready == descriptor for ready, _ in poll.poll())

    def tell(self) -> None:
        """Wakes the main thread up, from another one."""
        self._sending.send(b"\0")  # no signal has this number

    def wait(self) -> signal.Signals | None:
        """Returns the next signal that stops us, or None for a `tell`."""
        number = self._receiving.recv(1)[0]
        return signal.Signals(number) if number else None


def _handle(numbers: tuple[int, ...] | list[int], handler: Callable[..., object]) -> dict[int, object]:
    """Returns what was set before. What a parent ignores for us stays ignored, as `nohup` and `&` mean it."""
    before: dict[int, object] = {}
    for number in numbers:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def end_process(status: int) -> NoReturn:
    """Ends the process without Python's own end, which can wait for threads of libraries, or fail in them."""
    os._exit(status)
