"""What version 1 put on the wire can be read for good.

The bytes here were written once, by the code of the contract that docs/architecture.md calls the baseline
(`user_pb.User(…).SerializeToString().hex()`), and are never written anew: callers that nobody has updated send and
expect them. If a test here fails, the contract broke; fix the proto, not the bytes. `make breaking` compares the
protos with the last release's, this sees what they and the runtime make of bytes.
"""

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.rpc import error_details_pb2, status_pb2

from tests.support import bare_call, documents_in
from tests.test_contract import files
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1.error_reason_pb2 import ErrorReason
from userprofile_server.rpc.error_table import DOMAIN, ERROR_STATUSES, UNEXPECTED

JOHNDOE = bytes.fromhex("0a076a6f686e646f6512136a6f686e646f65406578616d706c652e636f6d1a084a6f686e20446f652000")
"""Every field is set."""

ADA = bytes.fromhex("0a03616461")
"""Every optional field is unset."""

JUERGEN = bytes.fromhex("0a076ac3bc7267656e12001a002000")
"""Every optional field is set, to an empty string or to false."""

ALICE = bytes.fromhex("0a05616c6963652001")
"""`disabled` is true, and set alone."""

NOBODY = bytes.fromhex(
    "080512165468657265206973206e6f207375636820757365722e1a490a28747970652e676f6f676c65617069732e636f6d2f676f6f676c65"
    "2e7270632e4572726f72496e666f121d0a0e555345525f4e4f545f464f554e44120b7573657270726f66696c65"
)
"""The Status of a name that nobody has."""

NAMELESS = bytes.fromhex(
    "0803121a54686520757365726e616d65206973206e6f742076616c69642e1a4b0a28747970652e676f6f676c65617069732e636f6d2f676f"
    "6f676c652e7270632e4572726f72496e666f121f0a10494e56414c49445f555345524e414d45120b7573657270726f66696c651a620a2974"
    "7970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4261645265717565737412350a330a0c757365726e616d65735b"
    "325d12116d757374206e6f7420626520656d7074791a10494e56414c49445f555345524e414d45"
)
"""The Status of an empty name, the third of a batch."""

MISSING = bytes.fromhex("0a066e6f626f64791a65") + NOBODY
"""The result of a name that nobody has."""

NO_FIELD = bytes.fromhex(
    "0803121b5468652072656164206d61736b206973206e6f742076616c69642e1a4c0a28747970652e676f6f676c65617069732e636f6d2f676f"
    "6f676c652e7270632e4572726f72496e666f12200a11494e56414c49445f524541445f4d41534b120b7573657270726f66696c651aa1010a29"
    "747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4261645265717565737412740a720a0f726561645f6d61736b2e"
    "7061746873124c6d757374206e616d65206669656c6473206f6620557365722028757365726e616d652c20656d61696c2c2066756c6c5f6e61"
    "6d652c2064697361626c6564292c206e6f74202770686f6e65271a11494e56414c49445f524541445f4d41534b"
)
"""The Status of a read mask with the path `phone`."""

FAILED_CALL = NOBODY + bytes.fromhex(
    "1a3a0a2a747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e52657175657374496e666f120c0a0a6d792d747261"
    "63652d31"
)
"""`grpc-status-details-bin` of a call for a name that nobody has: the request's id stands beside the reason."""


def test_a_request_for_one_user() -> None:
    assert pb.GetUserRequest.FromString(bytes.fromhex("0a076ac3bc7267656e")).username == "jürgen"
    assert pb.GetUserRequest.FromString(b"").username == ""


def test_a_request_for_several_users_keeps_order_and_empty_names() -> None:
    request = pb.BatchGetUsersRequest.FromString(bytes.fromhex("0a076a6f686e646f650a066e6f626f64790a00"))
    assert list(request.usernames) == ["johndoe", "nobody", ""]


def test_a_request_for_some_fields() -> None:
    data = bytes.fromhex("0a076ac3bc7267656e12120a05656d61696c0a0966756c6c5f6e616d65")
    request = pb.GetUserRequest.FromString(data)
    assert (request.username, list(request.read_mask.paths)) == ("jürgen", ["email", "full_name"])
    batch = pb.BatchGetUsersRequest.FromString(bytes.fromhex("0a076a6f686e646f650a066e6f626f64790a0012030a012a"))
    assert (list(batch.usernames), list(batch.read_mask.paths)) == (["johndoe", "nobody", ""], ["*"])


def test_a_request_for_all_fields_has_no_mask_or_one_without_a_path() -> None:
    assert not pb.GetUserRequest.FromString(bytes.fromhex("0a03616461")).HasField("read_mask")
    request = pb.GetUserRequest.FromString(bytes.fromhex("0a036164611200"))
    assert (request.HasField("read_mask"), list(request.read_mask.paths)) == (True, [])


def test_a_user_with_every_field() -> None:
    user = pb.GetUserResponse.FromString(bytes.fromhex("0a2a") + JOHNDOE).user
    assert user == user_pb.User(username="johndoe", email="johndoe@example.com", full_name="John Doe", disabled=False)


@pytest.mark.parametrize(
    ("data", "present"),
    [
        (JOHNDOE, {"email", "full_name", "disabled"}),
        (ADA, set()),
        (JUERGEN, {"email", "full_name", "disabled"}),
        (ALICE, {"disabled"}),
    ],
)
def test_what_was_set_is_set_and_what_was_not_is_not(data: bytes, present: set[str]) -> None:
    user = user_pb.User.FromString(data)
    assert {field.name for field, _ in user.ListFields()} == {"username"} | present


def test_the_values_of_what_was_set() -> None:
    empty = user_pb.User.FromString(JUERGEN)
    assert (empty.username, empty.email, empty.full_name, empty.disabled) == ("jürgen", "", "", False)
    assert user_pb.User.FromString(ALICE).disabled is True


def test_a_response_without_a_user_is_none_with_an_empty_one() -> None:
    assert not pb.GetUserResponse.FromString(b"").HasField("user")
    assert pb.GetUserResponse.FromString(bytes.fromhex("0a00")).HasField("user")


def test_the_outcomes_of_a_batch() -> None:
    data = (bytes.fromhex("0a0c0a0361646112050a03616461") + bytes.fromhex("0a6f") + MISSING) + (
        bytes.fromhex("0ad2011acf01") + NAMELESS
    )
    found, missing, nameless = pb.BatchGetUsersResponse.FromString(data).results
    assert [result.username for result in (found, missing, nameless)] == ["ada", "nobody", ""]
    assert [result.WhichOneof("outcome") for result in (found, missing, nameless)] == ["user", "error", "error"]
    assert found.user.username == "ada"
    assert (missing.error.code, nameless.error.code) == (5, 3)


def test_why_a_user_of_a_batch_is_missing() -> None:
    error = pb.BatchGetUsersResponse.Result.FromString(MISSING).error
    assert (error.code, error.message) == (grpc.StatusCode.NOT_FOUND.value[0], "There is no such user.")
    info = error_details_pb2.ErrorInfo()
    assert error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("USER_NOT_FOUND", "userprofile")


def test_which_name_of_a_batch_is_invalid() -> None:
    error = pb.BatchGetUsersResponse.Result.FromString(bytes.fromhex("1acf01") + NAMELESS).error
    bad_request = error_details_pb2.BadRequest()
    assert error.details[1].Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.description) == ("usernames[2]", "must not be empty")


def test_which_part_of_the_request_is_invalid() -> None:
    error = status_pb2.Status.FromString(NO_FIELD)
    bad_request = error_details_pb2.BadRequest()
    assert error.details[1].Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.reason) == ("read_mask.paths", "INVALID_READ_MASK")


def test_why_a_whole_call_failed() -> None:
    status = status_pb2.Status.FromString(FAILED_CALL)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (status.code, info.reason, request.request_id) == (5, "USER_NOT_FOUND", "my-trace-1")


# Field 2000 is one that no version has yet: a string, "new".
UNKNOWN = bytes.fromhex("827d036e6577")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (pb.GetUserRequest, ADA),
        (pb.GetUserResponse, bytes.fromhex("0a05") + ADA),
        (pb.BatchGetUsersRequest, ADA),
        (pb.BatchGetUsersResponse, bytes.fromhex("0a0c0a0361646112050a03616461")),
        (pb.BatchGetUsersResponse.Result, bytes.fromhex("0a0361646112050a03616461")),
        (user_pb.User, JOHNDOE),
    ],
)
def test_a_later_versions_fields_are_no_error_and_are_kept(kind: type[user_pb.User], data: bytes) -> None:
    message = kind.FromString(data + UNKNOWN)
    assert message.ListFields() == kind.FromString(data).ListFields()
    assert message.SerializeToString() == data + UNKNOWN


def test_a_later_versions_outcome_is_neither_a_user_nor_an_error() -> None:
    result = pb.BatchGetUsersResponse.Result.FromString(UNKNOWN)
    assert result.WhichOneof("outcome") is None
    assert result.SerializeToString() == UNKNOWN


@pytest.fixture
def user_store_url(store_url: str) -> str:
    """A store with johndoe, who has the fields of version 1 and no later one."""
    documents_in(store_url, {"johndoe": {"email": "johndoe@example.com", "full_name": "John Doe", "disabled": False}})
    return store_url


def test_the_running_server_understands_version_1(address: str) -> None:
    found = raw_call(address, "/userprofile.v1.UserProfileService/GetUser", bytes.fromhex("0a07") + b"johndoe")
    assert found == bytes.fromhex("0a2a") + JOHNDOE
    missing = raw_call(address, "/userprofile.v1.UserProfileService/BatchGetUsers", bytes.fromhex("0a066e6f626f6479"))
    assert missing == bytes.fromhex("0a6f") + MISSING
    masked = raw_call(
        address,
        "/userprofile.v1.UserProfileService/GetUser",
        bytes.fromhex("0a076a6f686e646f6512070a05656d61696c"),
    )
    assert masked == bytes.fromhex("0a1e0a076a6f686e646f6512136a6f686e646f65406578616d706c652e636f6d")


def raw_call(address: str, path: str, request: bytes) -> bytes:
    with grpc.insecure_channel(address) as channel:
        return bare_call(channel, path)(request, timeout=10)


def test_the_methods_of_version_1() -> None:
    methods = {
        f"/{service.full_name}/{method.name}": (
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming or method.server_streaming,
        )
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    version_1 = {
        "/userprofile.v1.UserProfileService/GetUser": (
            "userprofile.v1.GetUserRequest",
            "userprofile.v1.GetUserResponse",
            False,
        ),
        "/userprofile.v1.UserProfileService/BatchGetUsers": (
            "userprofile.v1.BatchGetUsersRequest",
            "userprofile.v1.BatchGetUsersResponse",
            False,
        ),
    }
    assert {path: methods.get(path) for path in version_1} == version_1


@pytest.mark.parametrize(
    ("message", "version_1"),
    [
        ("GetUserRequest", ["string username = 1", "google.protobuf.FieldMask read_mask = 2"]),
        ("GetUserResponse", ["userprofile.v1.User user = 1"]),
        ("BatchGetUsersRequest", ["repeated string usernames = 1", "google.protobuf.FieldMask read_mask = 2"]),
        ("BatchGetUsersResponse", ["repeated userprofile.v1.BatchGetUsersResponse.Result results = 1"]),
        (
            "BatchGetUsersResponse.Result",
            [
                "string username = 1",
                "outcome: userprofile.v1.User user = 2",
                "outcome: google.rpc.Status error = 3",
            ],
        ),
        (
            "User",
            [
                "string username = 1",
                "optional string email = 2",
                "optional string full_name = 3",
                "optional bool disabled = 4",
            ],
        ),
    ],
)
def test_the_fields_of_version_1(message: str, version_1: list[str]) -> None:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(f"userprofile.v1.{message}")
    fields = {declaration(field) for field in descriptor.fields}
    assert [field for field in version_1 if field not in fields] == []


def declaration(field: FieldDescriptor) -> str:
    """The field as the proto declares it; one of a oneof begins with the oneof's name."""
    kind = FieldDescriptorProto.Type.Name(FieldDescriptorProto.Type.ValueType(field.type)).removeprefix("TYPE_").lower()
    name = field.message_type.full_name if field.message_type else kind
    return f"{label(field)}{name} {field.name} = {field.number}"


def label(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "repeated "
    if field.containing_oneof is None:
        return ""
    # A field that is `optional` is, to the runtime, the only one of a oneof named after it.
    synthetic = field.containing_oneof.name == f"_{field.name}"
    return "optional " if synthetic else f"{field.containing_oneof.name}: "


def test_the_reasons_of_version_1() -> None:
    """Programs branch on them and on their statuses, which no comparison of protos sees."""
    reasons = {status.reason: status.code.name for status in [*ERROR_STATUSES.values(), UNEXPECTED]}
    version_1 = {
        "USER_NOT_FOUND": "NOT_FOUND",
        "INVALID_USERNAME": "INVALID_ARGUMENT",
        "INVALID_BATCH_SIZE": "INVALID_ARGUMENT",
        "INVALID_READ_MASK": "INVALID_ARGUMENT",
        "MALFORMED_REQUEST": "INVALID_ARGUMENT",
        "CORRUPT_DOCUMENT": "DATA_LOSS",
        "PROFILE_TOO_LARGE": "FAILED_PRECONDITION",
        "STORE_UNAVAILABLE": "UNAVAILABLE",
        "STORE_TIMEOUT": "UNAVAILABLE",
        "STORE_DAMAGED": "DATA_LOSS",
        "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
        "STORE_MISCONFIGURED": "INTERNAL",
        "INTERNAL": "INTERNAL",
        "OVERLOADED": "RESOURCE_EXHAUSTED",
        "REQUEST_INCOMPLETE": "UNAVAILABLE",
        "TOO_MANY_OPEN_CALLS": "RESOURCE_EXHAUSTED",
        "CALLER_UNKNOWN": "UNAUTHENTICATED",
        "CALLER_NOT_ALLOWED": "PERMISSION_DENIED",
        "CALLER_NOT_VERIFIED": "UNAVAILABLE",
    }
    assert {reason: reasons.get(reason) for reason in version_1} == version_1
    assert DOMAIN == "userprofile"


def test_the_numbers_of_the_reasons_of_version_1() -> None:
    numbers = {
        "USER_NOT_FOUND": 1,
        "INVALID_USERNAME": 2,
        "INVALID_BATCH_SIZE": 3,
        "INVALID_READ_MASK": 4,
        "MALFORMED_REQUEST": 5,
        "CORRUPT_DOCUMENT": 6,
        "PROFILE_TOO_LARGE": 7,
        "STORE_UNAVAILABLE": 8,
        "STORE_TIMEOUT": 9,
        "STORE_DAMAGED": 10,
        "STORE_MISCONFIGURED": 11,
        "DEADLINE_EXCEEDED": 12,
        "INTERNAL": 13,
        "OVERLOADED": 14,
        "REQUEST_INCOMPLETE": 15,
        "TOO_MANY_OPEN_CALLS": 16,
        "CALLER_UNKNOWN": 17,
        "CALLER_NOT_ALLOWED": 18,
        "CALLER_NOT_VERIFIED": 19,
        "SERVICE_UNREACHABLE": 1000,
        "CALL_REFUSED": 1001,
    }
    assert {name: ErrorReason.Value(f"ERROR_REASON_{name}") for name in numbers} == numbers


def test_where_the_generated_code_of_version_1_belongs() -> None:
    """Go's and Java's names come from these options; no address can change once callers import them."""
    for file in files():
        options = file.GetOptions()
        assert options.go_package == "userprofile.example/go/gen/userprofile/v1;userprofilev1"
        assert (options.java_package, options.java_multiple_files) == ("example.userprofile.v1", True)
        words = file.name.rpartition("/")[2].removesuffix(".proto").split("_")
        assert options.java_outer_classname == "".join(word.capitalize() for word in words) + "Proto"
