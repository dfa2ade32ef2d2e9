"""Asking for any number of users: a hundred names to a call, and what becomes of each. The same for both clients."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from userprofile.answers import Outcome, outcome_of
from userprofile.errors import BatchError, UserNotFoundError, UserProfileError, unsendable
from userprofile.user import User
from userprofile.v1 import user_profile_pb2 as pb

BATCH_SIZE = 100
"""How many names the server takes at once."""

BATCHES_IN_FLIGHT = 4
"""How many batches are asked for at once: enough to keep a server busy while answers travel."""


_NOTHING = pb.UserResult()


class Batch(NamedTuple):
    """The names of one call, and the errors of those among them that can't be sent."""

    usernames: list[str]
    unsendable: dict[str, UserProfileError]

    def request(self) -> pb.BatchGetUsersRequest | None:
        """Returns the message that asks for the names, None if none of them can be sent."""
        sendable = [name for name in self.usernames if name not in self.unsendable]
        return pb.BatchGetUsersRequest(usernames=sendable) if sendable else None

    def outcomes(self, results: Iterable[pb.UserResult], request_id: str | None) -> Iterator[tuple[str, Outcome]]:
        """Returns each name, in order, with what became of it; `results` are those of the names that were sent."""
        answers = iter(results)
        for name in self.usernames:
            yield name, self.unsendable.get(name) or outcome_of(next(answers, _NOTHING), name, request_id)

    def failed(self, error: UserProfileError) -> Iterator[tuple[str, Outcome]]:
        """Returns each name, in order, with the error that the whole call has failed with."""
        # One of its own for each name: who raises an error changes it.
        return ((name, self.unsendable.get(name) or copy.copy(error)) for name in self.usernames)


def split(usernames: Iterable[str]) -> Iterator[Batch]:
    """Returns the names in batches, and takes no more of them than it returns."""
    names = iter(usernames)
    while batch := list(itertools.islice(names, BATCH_SIZE)):
        problems = ((name, unsendable(name)) for name in batch)
        yield Batch(batch, {name: problem for name, problem in problems if problem is not None})


def check_several(usernames: Iterable[str]) -> None:
    """Raises TypeError for a lone username, which Python would take for a list of letters."""
    if isinstance(usernames, str | bytes):
        raise TypeError("usernames are several: put a single one into a list")


def collect(outcomes: Iterable[tuple[str, Outcome]]) -> dict[str, User]:
    """Returns those who were found, by username.

    Raises:
        BatchError: some names failed for another reason than that nobody has them.
    """
    users: dict[str, User] = {}
    errors: dict[str, UserProfileError] = {}
    for name, outcome in outcomes:
        if isinstance(outcome, User):
            users[name] = outcome
        elif not isinstance(outcome, UserNotFoundError):
            errors[name] = outcome
    if not errors:
        return users
    first = next(iter(errors.values()))
    raise BatchError(
        f"{len(errors)} of the users could not be read; the first of them: {first.message}",
        users=users,
        errors=errors,
        code=first.code,
        reason=first.reason,
        request_id=first.request_id,
        retryable=first.retryable,
    )
