"""Reading the server's answers: what it says is a user, or an error; nothing else gets through to the caller."""

import grpc

from userprofile.errors import UserProfileError, from_status
from userprofile.user import User, from_message
from userprofile.v1 import user_profile_pb2 as pb

Outcome = User | UserProfileError
"""What became of one name: the user, or the error that `get_user` would have raised."""


def outcome_of(answer: pb.GetUserResponse | pb.UserResult, username: str, request_id: str | None) -> Outcome:
    """Returns what `answer` says of the user who was asked for by this name."""
    if answer.HasField("user") and answer.user.username == username:
        return from_message(answer.user)
    if isinstance(answer, pb.UserResult) and answer.HasField("error"):
        return from_status(answer.error, request_id)
    # A later version's, or a server that isn't ours. Another user's profile must never pass for this one's.
    return UserProfileError(
        "The server's answer is one that this client doesn't understand.",
        code=grpc.StatusCode.UNKNOWN,
        request_id=request_id,
    )
