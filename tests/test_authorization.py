"""Who may call what, and who sees what: by token, by client certificate, and by the policy."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.authority import Authority
from tests.canary import guard
from tests.conftest import put_users
from tests.issuer import AUDIENCE, ISSUER, IssuerServer, SigningKey, key_set
from tests.support import WAIT, CallError, ScriptedStore, bare_stream, eventually, health_stub, settings_for
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.rpc import callers, health, service
from userprofile_server.security.tokens import new_token
from userprofile_server.server import UserProfileServer

FIELDS = tuple(user_pb.User.DESCRIPTOR.fields_by_name)
SERVICE = f"/{service.SERVICE.full_name}"
METHODS = [f"{SERVICE}/{method.name}" for method in service.SERVICE.methods]
REFLECTION = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
CHECK, WATCH = (f"/{health.SERVICE.full_name}/{name}" for name in ("Check", "Watch"))

POLICY = {
    "name": "users",
    "allow_rules": [
        {"name": "admin", "source": {"principals": ["token:admin"]}},
        {
            "name": "names only",
            "source": {"principals": ["token:names", "spiffe://example.org/names", "dns:names.example.org"]},
            "request": {"paths": [f"{SERVICE}/GetUser"]},
            "fields": ["full_name"],
        },
        {
            "name": "mail",
            "source": {"principals": ["token:mail"]},
            "request": {"paths": [f"{SERVICE}/*"]},
            "fields": ["email"],
        },
        {"name": "mail of the active", "source": {"principals": ["token:mail"]}, "fields": ["disabled"]},
        {"name": "debugging", "source": {"principals": ["token:debugging"]}, "request": {"paths": REFLECTION}},
    ],
    "deny_rules": [
        {"name": "no reflection", "source": {"principals": ["token:mail"]}, "request": {"paths": ["/grpc.reflection*"]}}
    ],
}

ALL = set(FIELDS)
SEEN: dict[str, dict[str, set[str] | None]] = {
    "admin": {f"{SERVICE}/GetUser": ALL, f"{SERVICE}/BatchGetUsers": ALL, REFLECTION[0]: set(), REFLECTION[1]: set()},
    "names": {
        f"{SERVICE}/GetUser": {"username", "full_name"},
        f"{SERVICE}/BatchGetUsers": None,
        REFLECTION[0]: None,
        REFLECTION[1]: None,
    },
    "mail": {
        f"{SERVICE}/GetUser": {"username", "email", "disabled"},
        f"{SERVICE}/BatchGetUsers": {"username", "email", "disabled"},
        REFLECTION[0]: None,
        REFLECTION[1]: None,
    },
    "debugging": {
        f"{SERVICE}/GetUser": None,
        f"{SERVICE}/BatchGetUsers": None,
        REFLECTION[0]: set(),
        REFLECTION[1]: set(),
    },
    "nobody": {f"{SERVICE}/GetUser": None, f"{SERVICE}/BatchGetUsers": None, REFLECTION[0]: None, REFLECTION[1]: None},
}
"""By caller and method, the fields of johndoe that are seen; None where the call is denied."""

Call = Callable[..., set[str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("callers")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    return folder


@pytest.fixture(scope="module")
def tokens(files: Path) -> dict[str, str]:
    return {name: new_token(name, files / "tokens") for name in SEEN}


@pytest.fixture(scope="module")
def users(files: Path) -> str:
    url = f"sqlite:///{files / 'users.db'}"
    put_users(url)
    return url


@pytest.fixture(scope="module")
def channel(files: Path, tokens: dict[str, str], users: str) -> Iterator[grpc.Channel]:
    settings = settings_for(users, tokens=str(files / "tokens"), policy=str(files / "policy.json"))
    with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
        yield channel


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def fields_in(user: user_pb.User) -> set[str]:
    return {name for name in FIELDS if (name == "username" and user.username) or user.HasField(name)}  # type: ignore[arg-type]


def call(
    channel: grpc.Channel, path: str, metadata: Any = (), *, mask: list[str] | None = None, username: str = "johndoe"
) -> set[str]:
    """Calls the method, and returns the fields of the user that are set; none for a method without users."""
    stub = pb_grpc.UserProfileServiceStub(channel)
    read_mask = None if mask is None else FieldMask(paths=mask)
    if path == f"{SERVICE}/GetUser":
        request = pb.GetUserRequest(username=username, read_mask=read_mask)
        return fields_in(stub.GetUser(request, metadata=metadata, timeout=WAIT).user)
    if path == f"{SERVICE}/BatchGetUsers":
        batch = pb.BatchGetUsersRequest(usernames=[username], read_mask=read_mask)
        (result,) = stub.BatchGetUsers(batch, metadata=metadata, timeout=WAIT).results
        return fields_in(result.user)
    listing = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    list(bare_stream(channel, path)(iter([listing]), metadata=metadata, timeout=WAIT))
    return set()


def test_every_method_and_every_field_has_a_decision() -> None:
    assert {"username", "email", "full_name", "disabled"} == ALL, "whom is the new field meant for?"
    for decided in SEEN.values():
        assert sorted(decided) == sorted([*METHODS, *REFLECTION]), "who may call the new method?"


@pytest.mark.parametrize("path", [*METHODS, *REFLECTION])
@pytest.mark.parametrize("name", SEEN)
def test_who_sees_what(channel: grpc.Channel, tokens: dict[str, str], name: str, path: str) -> None:
    seen = SEEN[name][path]
    if seen is not None:
        assert call(channel, path, bearer(tokens[name])) == seen
    else:
        error = CallError.of(lambda: call(channel, path, bearer(tokens[name])))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")


@pytest.mark.parametrize("field", [*FIELDS, "*"])
@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("name", ["admin", "mail"])
def test_who_may_ask_for_what(channel: grpc.Channel, tokens: dict[str, str], name: str, path: str, field: str) -> None:
    seen = SEEN[name][path]
    assert seen is not None
    if field == "*":
        assert call(channel, path, bearer(tokens[name]), mask=[field]) == seen
    elif field in seen:
        assert call(channel, path, bearer(tokens[name]), mask=[field]) == {"username", field}
    else:
        error = CallError.of(lambda: call(channel, path, bearer(tokens[name]), mask=["username", field]))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert field in str(error.details)


def test_health_is_for_everybody(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    eventually(lambda: call(channel, METHODS[0], bearer(tokens["admin"])), "it serves")
    for metadata in ((), bearer("wrong")):
        request = health_pb2.HealthCheckRequest()
        assert health_stub(channel).Check(request, metadata=metadata, timeout=WAIT).status == 1
        watch = health_stub(channel).Watch(request, metadata=metadata, timeout=WAIT)
        assert next(watch).status == 1
        watch.cancel()


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer wrong")],
        [("authorization", "Basic am9obmRvZTpzZWNyZXQ=")],
        [("authorization-bin", b"Bearer wrong")],
        [("authorization", "Bearer {admin}x")],
        [("authorization", "Bearer {admin} {admin}")],
        [("authorization", "{admin}")],
        [("authorization", "Bearer {admin}"), ("authorization", "Bearer {admin}")],
        [("authorization", "Bearer wrong"), ("authorization", "Bearer {admin}")],
        [("x-authorization", "Bearer {admin}")],
        [("authorization", "Bearer userprofile_" + "x" * 43)],
        [("authorization", "Bearer sha256:" + "0" * 64)],
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [*METHODS, *REFLECTION])
def test_without_a_valid_token_nobody_is_anybody(
    channel: grpc.Channel, tokens: dict[str, str], path: str, metadata: list[tuple[str, Any]]
) -> None:
    sent = [(key, value.format(**tokens) if isinstance(value, str) else value) for key, value in metadata]
    error = CallError.of(lambda: call(channel, path, sent))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")


def test_the_scheme_is_not_case_sensitive(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    """RFC 7235, section 2.1."""
    assert call(channel, METHODS[0], [("authorization", f"bearer  {tokens['admin']}")]) == ALL


def test_permission_comes_before_existence(files: Path, tokens: dict[str, str]) -> None:
    reads: list[float] = []
    settings = settings_for("sqlite:///unused.db", tokens=str(files / "tokens"), policy=str(files / "policy.json"))
    server = UserProfileServer(settings, open_store=lambda: ScriptedStore(reads.append))
    with server as address, grpc.insecure_channel(address) as channel:
        for path in METHODS:
            for metadata, mask in (
                (bearer(tokens["nobody"]), None),
                ([], None),
                (bearer(tokens["mail"]), ["full_name"]),
            ):
                errors = []
                for username in ("johndoe", "a user who does not exist", "", "\0"):
                    mine = [*metadata, ("x-request-id", "mine")]
                    errors.append(CallError.of(lambda: call(channel, path, mine, mask=mask, username=username)))  # noqa: B023
                (answer,) = {(error.code, error.message, str(error.details), str(error.metadata)) for error in errors}
                assert answer[0] in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
        assert reads == []


def test_each_denial_leaves_a_line_without_user_and_token(
    channel: grpc.Channel, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "userprofile_server.audit"):
        CallError.of(lambda: call(channel, METHODS[0], bearer(tokens["nobody"]), username="a-user"))
        CallError.of(lambda: call(channel, METHODS[0], bearer(tokens["mail"]), mask=["full_name"], username="a-user"))
        CallError.of(lambda: call(channel, METHODS[0], bearer("wrong-token"), username="a-user"))
        CallError.of(lambda: call(channel, METHODS[0], username="a-user"))
    lines = [record.getMessage() for record in caplog.records if record.name == "userprofile_server.audit"]
    assert [line.partition(" from ipv4:127.0.0.1:")[0] for line in lines] == [
        "token:nobody", "token:mail", "a caller", "a caller"
    ]  # fmt: skip
    assert [line.partition(" was denied ")[2] for line in lines] == [
        f"{METHODS[0]}: CALLER_NOT_ALLOWED",
        f"{METHODS[0]}: CALLER_NOT_ALLOWED: must not name full_name",
        f"{METHODS[0]}: CALLER_UNKNOWN: the token is not known",
        f"{METHODS[0]}: CALLER_UNKNOWN: the call has neither token nor certificate",
    ]
    for secret in ("a-user", "wrong-token", *tokens.values()):
        assert secret not in caplog.text


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def mtls_address(files: Path, authority: Authority, tokens: dict[str, str], users: str) -> Iterator[str]:
    authority.issue("localhost").write(files, "server")
    (files / "ca.pem").write_bytes(authority.pem)
    settings = settings_for(
        users,
        listen="mtls://127.0.0.1:0",
        tls_certificate=str(files / "server.pem"),
        tls_key=str(files / "server.key"),
        tls_client_ca=str(files / "ca.pem"),
        tokens=str(files / "tokens"),
        policy=str(files / "policy.json"),
    )
    with UserProfileServer(settings) as listening:
        yield listening.removeprefix("mtls://")


class TestCertificates:
    @pytest.mark.parametrize(
        "names",
        [
            ("spiffe://example.org/names",),
            ("spiffe://example.org/names", "other.example.org", "names.example.org"),
            ("names.example.org",),
            ("Names.EXAMPLE.org",),
        ],
        ids=str,
    )
    def test_a_spiffe_id_or_the_one_dns_name_is_the_identity(
        self, authority: Authority, mtls_address: str, names: tuple[str, ...]
    ) -> None:
        with authority.channel(mtls_address, authority.issue(*names)) as channel:
            for _ in range(3):  # the second time it is remembered
                assert call(channel, METHODS[0]) == {"username", "full_name"}
            assert CallError.of(lambda: call(channel, METHODS[1])).reason == "CALLER_NOT_ALLOWED"

    @pytest.mark.parametrize(
        ("names", "common_name"),
        [
            (("spiffe://example.org/names", "spiffe://example.org/other"), None),
            (("spiffe://example.org/names", "https://example.org/names"), None),
            (("https://example.org/names",), None),
            (("spiffe://example.org/",), None),
            (("https://example.org/names", "names.example.org"), None),
            (("names.example.org", "other.example.org"), None),
            ((), "spiffe://example.org/names"),
            ((), "names.example.org"),
            ((), "token:names"),
            (("token:names",), None),
            (("names.example.org\0.evil.example",), None),
            pytest.param(("names.example.org\0" + "e" * 66_000,), None, id="a NUL in 66,000 characters"),
            pytest.param(("a" * 2049,), None, id="2,049 characters"),
            (("spiffe://example.org/names\0",), None),
            (("names.example.org\nWARNING a line of its own",), None),
            (("spiffe://example.org/names more",), None),
        ],
        ids=str,
    )
    def test_a_certificate_without_one_of_them_is_nobody(
        self, authority: Authority, mtls_address: str, names: tuple[str, ...], common_name: str | None
    ) -> None:
        with authority.channel(mtls_address, authority.issue(*names, common_name=common_name)) as channel:
            for _ in range(3):
                error = CallError.of(lambda: call(channel, METHODS[0]))
                assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")

    def test_certificates_are_told_apart_however_many_there_are(
        self, authority: Authority, mtls_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(callers, "_MOST_REMEMBERED", 1)
        for _ in range(2):
            with authority.channel(mtls_address, authority.issue("names.example.org")) as channel:
                assert call(channel, METHODS[0]) == {"username", "full_name"}
            with authority.channel(mtls_address, authority.issue("other.example.org")) as channel:
                assert CallError.of(lambda: call(channel, METHODS[0])).reason == "CALLER_NOT_ALLOWED"

    def test_a_flood_of_one_name_is_queued_as_one_caller_and_served(
        self, authority: Authority, mtls_address: str
    ) -> None:
        """More calls at once than may be next, over several connections: they are queued by the certificate's names."""
        shown = authority.issue("spiffe://example.org/names")
        with ExitStack() as stack:
            channels = [stack.enter_context(authority.channel(mtls_address, shown)) for _ in range(4)]
            stubs = [pb_grpc.UserProfileServiceStub(channel) for channel in channels]
            request = pb.GetUserRequest(username="johndoe")
            calls = [stub.GetUser.future(request, timeout=WAIT) for _ in range(50) for stub in stubs]
            assert {call.result(WAIT).user.full_name for call in calls} == {"John Doe"}

    def test_a_wrong_token_gives_nobody_another_share_of_the_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [b"spiffe://example.org/names"]
        monkeypatch.setattr(callers, "cygrpc", SimpleNamespace(peer_identities=lambda _call: names))
        identified = callers.Callers(certificates=True)
        for metadata in (bearer("wrong"), [*bearer("wrong"), *bearer("other")], [("authorization", "none")], []):
            event = SimpleNamespace(invocation_metadata=metadata, call=None)
            assert identified.share_of(event) == tuple(names)

    def test_another_name_is_known_but_not_allowed(self, authority: Authority, mtls_address: str) -> None:
        for name in (
            "spiffe://example.org/names/more",
            "other.example.org",
            "x.names.example.org",
        ):
            with authority.channel(mtls_address, authority.issue(name)) as channel:
                assert CallError.of(lambda: call(channel, METHODS[0])).reason == "CALLER_NOT_ALLOWED"

    def test_a_token_comes_before_the_certificate(
        self, authority: Authority, mtls_address: str, tokens: dict[str, str]
    ) -> None:
        with authority.channel(mtls_address, authority.issue("spiffe://example.org/names")) as channel:
            assert call(channel, METHODS[0], bearer(tokens["admin"])) == ALL
            assert CallError.of(lambda: call(channel, METHODS[0], bearer("wrong"))).reason == "CALLER_UNKNOWN"
            assert call(channel, METHODS[0]) == {"username", "full_name"}


KEY = SigningKey("ES256")


@pytest.fixture(scope="module")
def jwt_channel(files: Path, tokens: dict[str, str], users: str) -> Iterator[grpc.Channel]:
    (files / "keys.json").write_bytes(key_set(KEY.public()))
    (files / "jwt.json").write_text(json.dumps(POLICY).replace("token:names", "jwt:names"))
    settings = settings_for(
        users,
        tokens=str(files / "tokens"),
        jwt_keys=str(files / "keys.json"),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        policy=str(files / "jwt.json"),
    )
    with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
        yield channel


class TestJsonWebTokens:
    """Which tokens are valid, tests/test_json_web_tokens.py says. Here is what becomes of their calls."""

    def test_the_subject_is_the_identity(self, jwt_channel: grpc.Channel, tokens: dict[str, str]) -> None:
        for _ in range(2):
            assert call(jwt_channel, METHODS[0], bearer(KEY.token(sub="names"))) == {"username", "full_name"}
        assert CallError.of(lambda: call(jwt_channel, METHODS[1], bearer(KEY.token(sub="names")))).reason == (
            "CALLER_NOT_ALLOWED"
        )
        for subject in ("admin", "token:admin", "spiffe://example.org/names"):  # the names of others stay theirs
            error = CallError.of(lambda: call(jwt_channel, METHODS[0], bearer(KEY.token(sub=subject))))  # noqa: B023
            assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert call(jwt_channel, METHODS[0], bearer(tokens["admin"])) == ALL

    def test_a_subject_cannot_look_like_another_line_of_the_audit(
        self, jwt_channel: grpc.Channel, caplog: pytest.LogCaptureFixture
    ) -> None:
        subject = "web from ipv4:192.0.2.1:1 was denied /x"
        CallError.of(lambda: call(jwt_channel, METHODS[0], bearer(KEY.token(sub=subject))))
        assert f"'jwt:{subject}' from ipv4:127.0.0.1:" in caplog.text

    @pytest.mark.parametrize(
        "token",
        [
            lambda key: key.token(sub="names", exp=time.time() - 100),
            lambda key: key.token(sub="names", aud="another"),
            lambda key: key.token(sub="names", iss="https://another.example"),
            lambda key: SigningKey("ES256").token(sub="names"),
            lambda key: SigningKey("ES256", "unknown").token(sub="names"),
            lambda key: jwt.encode({"sub": "names", "iss": ISSUER, "aud": AUDIENCE, "exp": 2**40}, "", "none"),
            lambda key: jwt.encode({"sub": "names", "iss": ISSUER, "aud": AUDIENCE, "exp": 2**40}, "x" * 32, "HS256"),
        ],
        ids=["expired", "for another", "of another issuer", "wrong signature", "unknown key", "alg: none", "HS256"],
    )
    def test_one_that_is_not_valid_is_nobodys(
        self, jwt_channel: grpc.Channel, token: Callable[[SigningKey], str], caplog: pytest.LogCaptureFixture
    ) -> None:
        sent = guard(token(KEY))
        error = CallError.of(lambda: call(jwt_channel, METHODS[0], bearer(sent)))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
        assert "CALLER_UNKNOWN: the token is not valid: " in caplog.text

    def test_one_whose_keys_are_not_here_yet_is_to_be_retried(self, files: Path, users: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            settings = settings_for(
                users,
                jwt_keys=f"http://127.0.0.1:{silent.getsockname()[1]}/keys",
                jwt_issuer=ISSUER,
                jwt_audience=AUDIENCE,
                policy=str(files / "policy.json"),
            )
            with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
                error = CallError.of(lambda: call(channel, METHODS[0], bearer(KEY.token(sub="names"))))
                assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "CALLER_NOT_VERIFIED")
                assert error.detail(error_details_pb2.RetryInfo)

    def test_a_process_that_others_can_stand_in_for_listens_once_it_has_the_keys(
        self, tmp_path: Path, users: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "policy.json").write_text(json.dumps(POLICY).replace("token:names", "jwt:names"))
        with IssuerServer(tmp_path, key_set(KEY.public())) as issuer:
            issuer.open.clear()
            settings = settings_for(
                users,
                jwt_keys=issuer.url,
                jwt_ca=str(issuer.authorities),
                jwt_issuer=ISSUER,
                jwt_audience=AUDIENCE,
                policy=str(tmp_path / "policy.json"),
            )
            server = UserProfileServer(settings)
            with ThreadPoolExecutor(1) as starting, ExitStack() as stack:
                stack.callback(server.stop, 0)
                address = starting.submit(server.start, threading.Event())
                eventually(lambda: "not listening before the issuer's keys are here" in caplog.text, "it waits")
                assert not address.done()
                issuer.open.set()
                with grpc.insecure_channel(address.result(WAIT)) as channel:
                    assert call(channel, METHODS[0], bearer(KEY.token(sub="names"))) == {"username", "full_name"}


@pytest.mark.slow
class TestNewFiles:
    def test_tokens_and_policy_are_read_again_whole_or_not_at_all(self, tmp_path: Path, user_store_url: str) -> None:
        tokens, policy = tmp_path / "tokens", tmp_path / "policy.json"
        first = new_token("names", tokens)
        policy.write_text(json.dumps(POLICY))
        settings = settings_for(user_store_url, tokens=str(tokens), policy=str(policy))
        with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:

            def seen(token: str) -> object:
                try:
                    return call(channel, METHODS[0], bearer(token))
                except grpc.RpcError as error:
                    return error.code()

            assert seen(first) == {"username", "full_name"}
            second = new_token("names", tokens)
            eventually(lambda: seen(second) == {"username", "full_name"}, "the second token is known")
            assert seen(first) == {"username", "full_name"}
            tokens.write_text(tokens.read_text().splitlines()[1] + "\n")
            eventually(lambda: seen(first) is grpc.StatusCode.UNAUTHENTICATED, "the first one isn't any more")
            assert seen(second) == {"username", "full_name"}
            policy.write_text(json.dumps(POLICY)[:-10])
            tokens.write_text("names sha256:nonsense\n")
            (tmp_path / "other").write_text(json.dumps({"name": "none", "allow_rules": []}))
            assert seen(second) == {"username", "full_name"}
            (tmp_path / "other").replace(policy)
            eventually(lambda: seen(second) is grpc.StatusCode.PERMISSION_DENIED, "nobody is allowed anything")

    def test_rules_that_match_nothing_are_warned_of(
        self, tmp_path: Path, user_store_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "policy.json"

        def write(*paths: str) -> None:
            denied = {"name": "typo", "request": {"paths": paths}}
            path.write_text(json.dumps({"name": "users", "allow_rules": [], "deny_rules": [denied]}))

        write(METHODS[0], f"{SERVICE}/getUser")
        with UserProfileServer(settings_for(user_store_url, policy=str(path))):
            assert "deny_rules[0].request.paths[1]: matches no method" in caplog.text
            write(METHODS[0], METHODS[1], f"{SERVICE}/GetUsers")
            eventually(lambda: "deny_rules[0].request.paths[2]: matches no method" in caplog.text, "it is read again")
