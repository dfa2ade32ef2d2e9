"""The client: one channel, and a method for each question."""

from typing import Self

import grpc

from userprofile.errors import UserNotFoundError, from_rpc_error, invalid_unicode
from userprofile.user import User, from_message
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0


class UserProfileClient:
    """Asks a userprofile service. Safe to share between threads; close it, or use it in a `with` block.

    Connects with the first call, not before, and again by itself whenever the connection is lost.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Takes the server's address and the seconds that a call may take unless it says otherwise.

        `target` is `host:port`, `unix:path` or another name that gRPC resolves
        (https://grpc.github.io/grpc/core/md_doc_naming.html).
        """
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target)
        self._stub = pb_grpc.UserProfileServiceStub(self._channel)

    def get_user(self, username: str, *, timeout: float | None = None) -> User:
        """Returns the user, waiting at most `timeout` seconds, by default the client's own.

        Raises:
            UserNotFoundError: nobody has this username.
            InvalidUsernameError: nobody can have it.
            UserProfileError: any other failure; see its subclasses.
        """
        try:
            request = pb.GetUserRequest(username=username)
        except UnicodeEncodeError:
            raise invalid_unicode() from None
        try:
            response = self._stub.GetUser(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return from_message(response.user)

    def find_user(self, username: str, *, timeout: float | None = None) -> User | None:
        """Like `get_user`, but returns None where nobody has this username."""
        try:
            return self.get_user(username, timeout=timeout)
        except UserNotFoundError:
            return None

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the channel."""
        self.close()
