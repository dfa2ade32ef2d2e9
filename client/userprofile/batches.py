"""Splits any number of usernames into batches of a hundred, and collects the outcomes. Shared by both clients."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask

from userprofile.errors import BatchError, UserNotFoundError, UserProfileError, unsendable
from userprofile.responses import Outcome, outcome_of
from userprofile.user import User
from userprofile.v1 import user_profile_service_pb2 as pb

BATCH_SIZE = 100
"""The maximum number of usernames that the server accepts per call."""

BATCHES_IN_FLIGHT = 4
"""The number of batches in flight: enough to keep a server busy while responses are on the network."""


_NOTHING = pb.BatchGetUsersResponse.Result()


class Batch(NamedTuple):
    """The usernames of one call, and the errors of those that can't be sent."""

    usernames: list[str]
    unsendable: dict[str, UserProfileError]

    def request(self, read_mask: FieldMask | None) -> pb.BatchGetUsersRequest | None:
        """Returns the request for the usernames that can be sent, None if there are none."""
        sendable = [name for name in self.usernames if name not in self.unsendable]
        return pb.BatchGetUsersRequest(usernames=sendable, read_mask=read_mask) if sendable else None

    def outcomes(
        self, results: Iterable[pb.BatchGetUsersResponse.Result], request_id: str | None
    ) -> Iterator[tuple[str, Outcome]]:
        """Returns each username, in order, with its outcome. `results` are for the usernames that were sent."""
        by_name = {result.username: result for result in results}
        for name in self.usernames:
            yield name, self.unsendable.get(name) or outcome_of(by_name.get(name, _NOTHING), name, request_id)

    def failed(self, error: UserProfileError) -> Iterator[tuple[str, Outcome]]:
        """Returns each username, in order, with the error of the whole call, or its own if it can't be sent."""
        # A copy for each username, because raising an error changes it.
        return ((name, self.unsendable.get(name) or copy.copy(error)) for name in self.usernames)


def split(usernames: Iterable[str]) -> Iterator[Batch]:
    """Yields the usernames in batches. Consumes no more usernames than it yields."""
    names = iter(usernames)
    while batch := list(itertools.islice(names, BATCH_SIZE)):
        problems = ((name, unsendable(name)) for name in batch)
        yield Batch(batch, {name: problem for name, problem in problems if problem is not None})


def check_several(usernames: Iterable[str]) -> None:
    """Raises TypeError for a single string, which Python would iterate over letter by letter."""
    if isinstance(usernames, str | bytes):
        raise TypeError("expected an iterable of usernames, got a single string")


def collect(outcomes: Iterable[tuple[str, Outcome]]) -> dict[str, User]:
    """Returns the users that were found, by username.

    Raises:
        BatchError: some usernames failed for another reason than USER_NOT_FOUND.
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
        f"{len(errors)} of the users could not be read; the first error: {first.message}",
        users=users,
        errors=errors,
        code=first.code,
        reason=first.reason,
        request_id=first.request_id,
        retryable=first.retryable,
    )
