"""`read_mask` of both methods, as a caller sees it, beyond the table in tests/client_conformance."""

import functools
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tests.client_conformance import USERS
from tests.support import CallError, document
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.users.models import User, UserInDB

Call = Callable[[FieldMask | None], user_pb.User]
"""Reads johndoe, by either method."""

FIELDS = list(user_pb.User.DESCRIPTOR.fields_by_name)
JOHNDOE = user_pb.User(username="johndoe", **USERS["johndoe"])


@pytest.fixture
def stub(shared_address: str) -> Iterator[pb_grpc.UserProfileServiceStub]:
    with grpc.insecure_channel(shared_address) as channel:
        yield pb_grpc.UserProfileServiceStub(channel)


@pytest.fixture(params=["GetUser", "BatchGetUsers"])
def call(request: pytest.FixtureRequest, stub: pb_grpc.UserProfileServiceStub) -> Call:
    def get_user(mask: FieldMask | None) -> user_pb.User:
        return stub.GetUser(pb.GetUserRequest(username="johndoe", read_mask=mask), timeout=10).user

    def batch_get_users(mask: FieldMask | None) -> user_pb.User:
        batch = pb.BatchGetUsersRequest(usernames=["johndoe"], read_mask=mask)
        (result,) = stub.BatchGetUsers(batch, timeout=10).results
        assert result.username == "johndoe"
        return result.user

    return get_user if request.param == "GetUser" else batch_get_users


def names(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


@pytest.mark.parametrize("paths", [None, [], ["*"], ["*", "*"], ["email", "*"], FIELDS, FIELDS * 2])
def test_everything_is_requested(call: Call, paths: list[str] | None) -> None:
    assert call(None if paths is None else FieldMask(paths=paths)) == JOHNDOE


@pytest.mark.parametrize("field", FIELDS)
def test_one_field_alone_comes_with_the_username(call: Call, field: str) -> None:
    user = call(FieldMask(paths=[field, field]))
    assert names(user) == {"username", field}
    assert getattr(user, field) == getattr(JOHNDOE, field)


def test_a_json_mask_has_json_names(call: Call) -> None:
    request = json_format.Parse('{"readMask": "fullName,disabled"}', pb.GetUserRequest())
    assert names(call(request.read_mask)) == {"username", "full_name", "disabled"}


UNKNOWN = [
    "shoe_size", "fullName", "Email", " email", "email ", "", ".", "email.", ".email", "email,full_name", "**", "user",
    "user.email", "username.x", "email.domain", "full_name.*", "*.email", "`email`", "userprofile.v1.User.email",
    "e\u0301mail", "email\0", "\u202eliame", "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("beside", [[], ["email"], ["*"]])
def test_a_path_that_is_no_field_fails_the_call(call: Call, path: str, beside: list[str]) -> None:
    for mask in (FieldMask(paths=[path, *beside]), FieldMask(paths=[*beside, path])):
        error = CallError.of(functools.partial(call, mask))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_READ_MASK")
        assert error.request_id
        (violation,) = error.detail(error_details_pb2.BadRequest).field_violations
        assert (violation.field, violation.reason) == ("read_mask.paths", "INVALID_READ_MASK")
        assert violation.description.startswith(f"must name fields of User ({', '.join(FIELDS)}), not ")
        assert violation.description.isprintable()
        assert len(violation.description) < 200


def test_what_else_is_stored_is_refused_like_what_is_not(call: Call) -> None:
    """No error says that a document has a hash, a type or other fields."""
    hidden = [name for name in UserInDB.model_fields if name not in FIELDS] + ["password", "admin_roles"]
    assert "hashed_password" in hidden

    def error(path: str) -> tuple[str, str]:
        error = CallError.of(lambda: call(FieldMask(paths=[path])))
        return error.message, str(error.detail(error_details_pb2.BadRequest)).replace(path, "…")

    assert {error(path) for path in hidden} == {error("nonsense")}


def test_a_mask_that_is_not_valid_reads_nothing(serve: Serve) -> None:  # noqa: F811
    reads: list[float] = []
    stub = pb_grpc.UserProfileServiceStub(serve(reads.append).channel)
    mask = FieldMask(paths=["shoe_size"])
    for call in (
        lambda: stub.GetUser(pb.GetUserRequest(username="johndoe", read_mask=mask), timeout=10),
        lambda: stub.BatchGetUsers(pb.BatchGetUsersRequest(usernames=["johndoe"], read_mask=mask), timeout=10),
    ):
        assert CallError.of(call).reason == "INVALID_READ_MASK"
    assert reads == []


def test_each_of_a_batch_has_the_fields_and_its_name(stub: pb_grpc.UserProfileServiceStub) -> None:
    usernames = ["nobody", "johndoe", "", "null", "johndoe"]
    request = pb.BatchGetUsersRequest(usernames=usernames, read_mask=FieldMask(paths=["full_name"]))
    results = list(stub.BatchGetUsers(request, timeout=10).results)
    assert [result.username for result in results] == usernames
    john = user_pb.User(username="johndoe", full_name="John Doe")
    assert [result.user for result in results if result.HasField("user")] == [john, user_pb.User(username="null"), john]


def test_the_contract_and_the_model_have_the_same_fields() -> None:
    """A read mask takes the contract's names for the model's."""
    assert list(User.model_fields) == FIELDS


def test_a_document_with_other_fields_shows_none_of_them(stub: pb_grpc.UserProfileServiceStub) -> None:
    assert b"hashed_password" in document("johndoe")
    user = stub.GetUser(pb.GetUserRequest(username="johndoe", read_mask=FieldMask(paths=["*"])), timeout=10).user
    assert names(user) <= set(FIELDS)
