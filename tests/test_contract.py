"""Promises about the contract and its way through the code that no single call shows."""

import importlib
import pkgutil
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FileDescriptor

import userprofile
import userprofile.testing
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile_server import errors
from userprofile_server.rpc.error_table import ERROR_STATUSES


def files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(importlib.import_module("userprofile.v1").__path__, "userprofile.v1."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR


def messages() -> Iterator[Descriptor]:
    found = [message for file in files() for message in file.message_types_by_name.values()]
    for message in found:
        yield message
        found += message.nested_types


def test_no_message_has_a_field_for_a_secret() -> None:
    fields = [f"{message.name}.{field.name}" for message in messages() for field in message.fields]
    assert {"User.username", "Result.error"} <= set(fields)
    assert [name for name in fields if "password" in name or "hash" in name or "secret" in name] == []


def test_no_later_version_can_add_one_by_mistake() -> None:
    from google.protobuf.descriptor_pb2 import DescriptorProto

    user = DescriptorProto()
    user_pb.User.DESCRIPTOR.CopyToProto(user)
    assert set(user.reserved_name) == {"hashed_password", "password"}


def test_optional_fields_have_presence() -> None:
    fields = user_pb.User.DESCRIPTOR.fields_by_name
    assert [name for name, field in fields.items() if not field.has_presence] == ["username"]


def test_every_error_of_the_domain_has_a_status() -> None:
    def leaves(kind: type[errors.DomainError]) -> Iterator[type[errors.DomainError]]:
        if not kind.__subclasses__():
            yield kind
        for child in kind.__subclasses__():
            yield from leaves(child)

    known = {kind for kind in leaves(errors.DomainError) if kind.__module__ == errors.__name__}
    assert known - {errors.DocumentsRefusedError} == set(
        ERROR_STATUSES
    )  # which writing alone raises, and no call writes


def test_reasons_are_in_the_form_of_aip_193_and_each_has_one_status() -> None:
    reasons = [status.reason for status in ERROR_STATUSES.values()]
    assert len({(status.reason, status.code) for status in ERROR_STATUSES.values()}) == len(set(reasons))
    assert all(reason.replace("_", "").isalpha() and reason.isupper() for reason in reasons)


def test_the_clients_public_names() -> None:
    assert sorted(userprofile.__all__) == [
        "AsyncUserProfileClient",
        "BatchError",
        "CallOptions",
        "CorruptProfileError",
        "DeadlineExceededError",
        "InvalidUsernameError",
        "PermissionDeniedError",
        "ProfileTooLargeError",
        "ServiceUnavailableError",
        "TLS",
        "UnauthenticatedError",
        "User",
        "UserNotFoundError",
        "UserProfileClient",
        "UserProfileError",
        "__version__",
    ]


def test_what_the_clients_and_their_fake_server_offer() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    methods = {"get_user", "find_user", "get_users", "iter_users", "check_health", "close"}
    assert public(userprofile.UserProfileClient) == public(userprofile.AsyncUserProfileClient) == methods
    server = {"add", "fail", "recover", "set_serving", "start", "stop"}
    assert public(userprofile.testing.FakeUserProfileServer) == server
    assert set(userprofile.CallOptions.__annotations__) == {
        "timeout", "wait_for_ready", "request_id", "metadata", "context",
    }  # fmt: skip
