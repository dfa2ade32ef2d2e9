"""JSON Web Tokens: which are accepted, and where their keys come from. The issuer is a real HTTPS server."""

import base64
import hmac
import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from tests.canary import guard, raises
from tests.certificates import without_identifiers
from tests.issuer import AUDIENCE, ISSUER, IssuerServer, SigningKey, key_set
from tests.support import WAIT, eventually, run
from userprofile_server.errors import CallerNotVerifiedError, CallerUnknownError
from userprofile_server.security import json_web_tokens, key_fetcher
from userprofile_server.security.json_web_keys import parse_keys
from userprofile_server.security.json_web_tokens import JsonWebTokens
from userprofile_server.security.settings import ALGORITHMS, JwtSettings
from userprofile_server.security.watched import Watcher

ALLOWED = frozenset(ALGORITHMS)
KEY = SigningKey("ES256")


def settings(keys: object, **more: Any) -> JwtSettings:
    return JwtSettings(keys=str(keys), issuer=ISSUER, audience=AUDIENCE, **more)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(KEY.public()))
    return path


@pytest.fixture
def tokens(keys: Path) -> JsonWebTokens:
    return JsonWebTokens(settings(keys), Watcher())


def refused(tokens: JsonWebTokens, token: str) -> str:
    """Why this token is not valid."""
    with raises(CallerUnknownError) as caught:
        tokens.verify(guard(token))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "it holds content of the token"
    return str(caught.value)


def encoded(part: object) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class TestValid:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_tokens_by_each_algorithm_name_their_subject(self, tmp_path: Path, algorithm: str) -> None:
        key = SigningKey(algorithm)
        path = tmp_path / "keys.json"
        path.write_bytes(key_set(key.public()))
        tokens = JsonWebTokens(settings(path, algorithms=algorithm), Watcher())
        assert tokens.verify(key.token(sub="someone")) == "jwt:someone"

    def test_a_service_account_of_kubernetes(self, tokens: JsonWebTokens) -> None:
        token = KEY.token(
            aud=["https://kubernetes.default.svc", AUDIENCE],
            sub="system:serviceaccount:web:frontend",
            iat=int(time.time()),
            nbf=int(time.time()),
            jti="6b6ab6c7-9f2c-4a6e-8c8f-0e5f1e1f6d3c",
            claims={"kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "frontend", "uid": "1"}}},
        )
        assert tokens.verify(token) == "jwt:system:serviceaccount:web:frontend"

    def test_the_key_is_chosen_by_its_id(self, tmp_path: Path) -> None:
        keys = [SigningKey("ES256", name) for name in ("first", "second")]
        path = tmp_path / "keys.json"
        path.write_bytes(key_set(*(key.public() for key in keys)))
        tokens = JsonWebTokens(settings(path), Watcher())
        assert [tokens.verify(key.token(sub=key.key_id)) for key in keys] == ["jwt:first", "jwt:second"]
        assert "signature is wrong" in refused(tokens, keys[0].token({"kid": "second"}))

    def test_keys_may_share_an_id(self, tmp_path: Path) -> None:
        keys = [SigningKey("ES256", "shared") for _ in range(3)]
        path = tmp_path / "keys.json"
        path.write_bytes(key_set(*(key.public() for key in keys)))
        tokens = JsonWebTokens(settings(path), Watcher())
        assert [tokens.verify(key.token()) for key in keys] == ["jwt:web"] * 3
        assert "its signature is wrong" in refused(tokens, SigningKey("ES256", "shared").token())
        assert "it has expired" in refused(tokens, keys[0].token(exp=time.time() - 100))

    def test_a_token_without_a_key_id_needs_an_only_key_of_its_algorithm(self, tmp_path: Path) -> None:
        only, others = SigningKey("ES256", None), [SigningKey("RS256", name) for name in ("a", "b")]
        path = tmp_path / "keys.json"
        path.write_bytes(key_set(only.public(), *(key.public() for key in others)))
        tokens = JsonWebTokens(settings(path), Watcher())
        assert tokens.verify(only.token()) == "jwt:web"
        nameless = SigningKey("RS256", None, others[0].private)
        assert "no key is for it" in refused(tokens, nameless.token())

    def test_clocks_may_differ_by_the_leeway(self, keys: Path) -> None:
        now = time.time()
        token = KEY.token(exp=now - 100, nbf=now + 100, iat=now + 100)
        assert JsonWebTokens(settings(keys, leeway=300), Watcher()).verify(token) == "jwt:web"
        assert "it isn't valid yet" in refused(JsonWebTokens(settings(keys, leeway=0), Watcher()), token)


MANY_DIGITS = b'{"alg":' + b"9" * 8000 + b"}"
BAD: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: KEY.token(exp=time.time() - 60), "it has expired"),
    "not yet valid": (lambda: KEY.token(nbf=time.time() + 60), "it isn't valid yet"),
    "of another issuer": (lambda: KEY.token(iss="https://other.example"), "it is from another issuer"),
    "for another audience": (lambda: KEY.token(aud=["other"]), "it is for another audience"),
    "with a part of the audience": (lambda: KEY.token(aud="userprofile2"), "it is for another audience"),
    "of nobody": (lambda: KEY.token(sub=""), "its sub is empty"),
    "with a number as sub": (lambda: KEY.token(sub=7), "its sub is no string"),
    "with a line end in sub": (lambda: KEY.token(sub="web\nFAKE LINE OF THE LOG"), "control characters"),
    "with an escape in sub": (lambda: KEY.token(sub="\x1b[31m"), "control characters"),
    "with a long sub": (lambda: KEY.token(sub="x" * 513), "too long"),
    "with an endless exp": (lambda: KEY.token(exp=float("inf")), "it isn't a JSON Web Token"),
    "with words as exp": (lambda: KEY.token(exp="tomorrow"), "it isn't a JSON Web Token"),
    "by another key": (lambda: SigningKey("ES256").token(), "its signature is wrong"),
    "by an unknown key": (lambda: SigningKey("ES256", "other").token(), "the issuer has no such key"),
    "by another algorithm than its key's": (lambda: SigningKey("RS256").token(), "no key is for it and its algorithm"),
    "by an algorithm that isn't allowed": (lambda: SigningKey("PS256").token(), "its algorithm is not among those"),
    "with an unknown extension": (lambda: KEY.token({"crit": ["exp2"], "exp2": 1}), "is not valid"),
    "with a detached payload": (lambda: f"{encoded({'alg': 'ES256', 'b64': False})}..{'a' * 86}", "is not valid"),
    "with a number as key id": (lambda: f"{encoded({'alg': 'ES256', 'kid': 7})}.e30.{'a' * 86}", "is not valid"),
    "with a list as algorithm": (lambda: f"{encoded({'alg': ['ES256']})}.e30.{'a' * 86}", "is not valid"),
    "unsigned": (lambda: f"{encoded({'alg': 'none', 'kid': 'first'})}.{encoded({'sub': 'web'})}.", "its algorithm is"),
    "signed by a public key": (lambda: signed_by_the_public_key(), "its algorithm is not among those"),
    "cut off": (lambda: KEY.token()[:-10], "is not valid"),
    "with more at its end": (lambda: KEY.token() + "AAAA", "its signature is wrong"),
    "empty": (lambda: "", "it isn't a JSON Web Token"),
    "dots": (lambda: "..", "it isn't a JSON Web Token"),
    "text": (lambda: "userprofile_something else", "it isn't a JSON Web Token"),
    "not ASCII": (lambda: KEY.token() + "é", "not ASCII"),
    "half a character": (lambda: "\ud800", "not ASCII"),
    "endless": (lambda: "a" * 16_385, "too long"),
    "a number as header": (lambda: f"{encoded(7)}.e30.e30", "it isn't a JSON Web Token"),
    "a list as algorithm": (lambda: f"{encoded({'alg': ['ES256']})}.e30.e30", "its algorithm is not among"),
    "deeply nested": (lambda: f"{encoded(b'[' * 9000)}.e30.e30", "is not valid"),
    "with a number of many digits": (lambda: f"{encoded(MANY_DIGITS)}.e30.e30", "is not valid"),
}  # fmt: skip
"""Tokens that aren't valid, and what the audit says of each."""


def signed_by_the_public_key() -> str:
    """The classic: what everybody knows, as the secret of HMAC."""
    public = KEY.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded({'sub': 'web', 'iss': ISSUER, 'aud': AUDIENCE})}"
    return f"{text}.{encoded(hmac.digest(public, text.encode(), 'sha256'))}"


class TestNotValid:
    @pytest.mark.parametrize("kind", BAD)
    def test_is_refused_in_words_without_its_content(self, keys: Path, kind: str) -> None:
        make, says = BAD[kind]
        tokens = JsonWebTokens(settings(keys, leeway=0), Watcher())
        for _ in range(2):
            assert says in refused(tokens, make())

    @pytest.mark.parametrize("name", ["exp", "iss", "aud", "sub"])
    def test_each_of_these_claims_is_needed(self, tokens: JsonWebTokens, name: str) -> None:
        assert "it lacks one of exp, iss, aud and sub" in refused(tokens, KEY.token(claims={name: None}))

    def test_one_that_was_accepted_is_refused_once_it_has_expired(self, keys: Path) -> None:
        tokens = JsonWebTokens(settings(keys, leeway=0), Watcher())
        token = KEY.token(exp=time.time() + 1.5)
        assert tokens.verify(token) == tokens.verify(token) == "jwt:web"
        eventually(lambda: time.time() > claim(token, "exp"), "it expires")
        assert "it has expired" in refused(tokens, token)
        assert tokens.known(token) is None, "whoever finds an old token gets no share of its caller's queue"


def claim(token: str, name: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))[name]


class TestVerifiedOnce:
    def test_a_token_is_verified_once(self, tokens: JsonWebTokens, monkeypatch: pytest.MonkeyPatch) -> None:
        token = KEY.token()
        tokens.verify(token)
        monkeypatch.delattr(jwt, "decode")
        assert tokens.verify(token) == "jwt:web"

    def test_the_memory_has_a_bound_and_threads_may_share_it(
        self, tokens: JsonWebTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(json_web_tokens, "_MOST_VERIFIED", 10)
        made = [KEY.token(sub=str(number)) for number in range(50)]
        found: list[str] = []

        def verify() -> None:
            found.extend(tokens.verify(token) for token in made)

        threads = [threading.Thread(target=verify) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert sorted(found) == sorted(f"jwt:{number}" for number in range(50) for _ in threads)
        assert len(tokens._state.verified) <= 10

    def test_long_ones_are_known_too_and_the_memory_counts_their_characters(
        self, tokens: JsonWebTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = [KEY.token(sub=str(number), groups="x" * 8000) for number in range(5)]
        monkeypatch.setattr(json_web_tokens, "_MOST_CHARACTERS_VERIFIED", 4 * len(made[0]) - 100)
        for token in made:
            tokens.verify(token)
        assert [tokens.known(token) for token in made] == [None, None, "jwt:2", "jwt:3", "jwt:4"]

    def test_it_does_not_outlive_the_keys(self, keys: Path) -> None:
        watcher = Watcher(interval=0.01)
        tokens = JsonWebTokens(settings(keys), watcher)
        watcher.start()
        token = KEY.token()
        assert tokens.verify(token) == "jwt:web"
        other = SigningKey("ES256", "other")
        keys.write_bytes(key_set(other.public()))
        eventually(lambda: is_unknown(tokens, token), "the new keys are in use")
        assert tokens.verify(other.token()) == "jwt:web"
        watcher.stop()


def is_unknown(tokens: JsonWebTokens, token: str) -> bool:
    try:
        tokens.verify(token)
    except CallerUnknownError:
        return True
    return False


BAD_KEYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "isn't JSON"),
    "text": (b"see the wiki", "isn't JSON"),
    "nested": (b"[" * 100_000, "isn't JSON"),
    "a single key": (json.dumps(KEY.public()).encode(), "isn't a set of keys (JWKS)"),
    "numbers": (b'{"keys": [1]}', "keys[0] is damaged"),
    "none": (key_set(), "has no key that verifies signatures by"),
    "only a key that encrypts": (key_set(KEY.public(use="enc")), "has no key that verifies"),
    "only a key that doesn't verify": (key_set(KEY.public(key_ops=["sign"])), "has no key that verifies"),
    "odd key_ops": (key_set(KEY.public(key_ops=7)), "has no key that verifies"),
    "only a key for another algorithm": (key_set(KEY.public(alg="ECDH-ES")), "has no key that verifies"),
    "only a shared secret": (key_set({"kty": "oct", "k": encoded(b"x" * 32), "alg": "HS256"}), "has no key"),
    "a list as alg": (key_set(KEY.public(alg=["ES256"])), "keys[0] is damaged"),
    "a list as kty": (key_set({"kty": ["EC"]}), "keys[0] is damaged"),
    "a number as kid": (key_set(KEY.public(kid=7)), "keys[0] is damaged"),
    "a point off the curve": (key_set(KEY.public(x=encoded(b"\1" * 32))), "keys[0] is damaged"),
    "no point": (key_set({"kty": "EC", "crv": "P-256"}), "keys[0] is damaged"),
    "a number as point": (key_set(KEY.public(x=7)), "keys[0] is damaged"),
    "a private key": (key_set(KEY.public(d=guard(encoded(b"\7" * 32)))), "keys[0] is a private key"),
    "a short key": (
        key_set(SigningKey("RS256", "short", rsa.generate_private_key(65537, 1024)).public()),
        "keys[0] has less than 2048 bits",
    ),
}


class TestKeys:
    @pytest.mark.parametrize("kind", BAD_KEYS)
    def test_bad_ones_are_named_at_the_start(self, keys: Path, kind: str) -> None:
        content, says = BAD_KEYS[kind]
        keys.write_bytes(content)
        with raises(ValueError, match="^" + str(keys)) as caught:
            JsonWebTokens(settings(keys), Watcher())
        assert says in str(caught.value)

    def test_a_file_that_is_missing_or_none(self, tmp_path: Path) -> None:
        for path, says in [(tmp_path / "missing", "No such file"), (tmp_path, "is a folder")]:
            with raises(ValueError, match=says):
                JsonWebTokens(settings(path), Watcher())

    def test_one_that_is_unusable_is_named_and_costs_no_other(
        self, keys: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        short = SigningKey("RS256", "short", rsa.generate_private_key(65537, 1024))
        keys.write_bytes(key_set(short.public(), KEY.public(), KEY.public(kid=7)))
        tokens = JsonWebTokens(settings(keys), Watcher())
        assert tokens.verify(KEY.token()) == "jwt:web"
        assert logged(caplog) == [
            f"JWT keys: 1 in use, of {keys}",
            f"JWT keys: not in use, of {keys}: keys[0] has less than 2048 bits",
            f"JWT keys: not in use, of {keys}: keys[2] is damaged",
        ]

    def test_keys_for_something_else_do_no_harm(self) -> None:
        other = SigningKey("RS256", "other")
        text = key_set(
            {"kty": "oct", "k": "c2VjcmV0", "kid": "first"},
            {"kty": "AKP", "alg": "ML-DSA-65", "pub": "abc"},
            {"kty": "OKP", "crv": "X25519", "x": encoded(b"x" * 32)},
            {"kty": "EC", "crv": "P-257"},
            other.public(alg="RS512"),
            KEY.public(),
        ).decode()
        found = parse_keys(text, ALLOWED)
        assert len(found) == 2
        assert found.find("first", "ES256")
        assert found.find("other", "RS512")
        assert not found.find("other", "RS256"), "the key says what it is for"

    def test_the_same_id_twice_is_told_apart_by_algorithm(self) -> None:
        found = parse_keys(key_set(SigningKey("RS256").public(), KEY.public()).decode(), ALLOWED)
        assert found.find("first", "ES256") != found.find("first", "RS256")


@contextmanager
def fetching(issuer: IssuerServer, *, refresh: float = 3600.0, ask: float = 3600.0) -> Iterator[JsonWebTokens]:
    ca = issuer.authorities if issuer.url.startswith("https:") else None
    tokens = JsonWebTokens(settings(issuer.url, ca=ca), Watcher(), refresh_seconds=refresh, ask_seconds=ask)
    tokens.start()
    try:
        yield tokens
    finally:
        tokens.stop()
        issuer.open.set()


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[IssuerServer]:
    with IssuerServer(tmp_path, key_set(KEY.public())) as issuer:
        yield issuer


@pytest.fixture
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_fetcher, "_LONGEST_RETRY", 0.05)
    monkeypatch.setattr(key_fetcher, "_FIRST_RETRY", 0.05)


def is_verified(tokens: JsonWebTokens, token: str) -> bool:
    try:
        tokens.verify(token)
    except CallerNotVerifiedError:
        return False
    return True


def not_verified(tokens: JsonWebTokens, token: str) -> str:
    with raises(CallerNotVerifiedError) as caught:
        tokens.verify(token)
    return str(caught.value)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


class TestFetched:
    def test_no_call_waits_for_them(self, issuer: IssuerServer) -> None:
        issuer.open.clear()
        with fetching(issuer) as tokens:
            assert "have not been fetched yet" in not_verified(tokens, KEY.token())
            issuer.open.set()
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")

    def test_a_thousand_tokens_with_unknown_keys_are_one_fetch(self, issuer: IssuerServer) -> None:
        others = [f"{encoded({'alg': 'ES256', 'kid': f'other {number}'})}.e30.e30" for number in range(1000)]
        with fetching(issuer, ask=0) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")
            issuer.open.clear()
            assert {"being fetched again" in not_verified(tokens, token) for token in others} == {True}
            eventually(lambda: issuer.fetches == 2, "they are fetched again")
            assert tokens.verify(KEY.token()) == "jwt:web", "a known key needs no fetch"
            assert issuer.fetches == 2

    def test_a_token_with_an_unknown_key_is_no_reason_to_fetch_new_keys_again(self, issuer: IssuerServer) -> None:
        with fetching(issuer) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")
            eventually(lambda: "no such key" in why_not(tokens, SigningKey("ES256", "other").token()), "they are new")
            assert issuer.fetches == 1

    def test_a_new_key_is_found_when_a_token_has_it(self, issuer: IssuerServer) -> None:
        with fetching(issuer, ask=0.05) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")
            new = SigningKey("ES256", "new")
            issuer.content = key_set(KEY.public(), new.public())
            eventually(lambda: why_not(tokens, new.token()) == "", "the new key is here")

    def test_they_are_fetched_again_by_themselves(self, issuer: IssuerServer) -> None:
        with fetching(issuer, refresh=0.05, ask=0) as tokens:
            eventually(lambda: issuer.fetches > 3, "they are fetched again")
            issuer.content = key_set(SigningKey("ES256", "new").public())
            eventually(lambda: why_not(tokens, KEY.token()) != "", "a key that is gone is forgotten")

    @pytest.mark.usefixtures("_soon_again")
    def test_known_keys_stay_while_the_issuer_is_broken(
        self, issuer: IssuerServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "userprofile_server")
        with fetching(issuer, refresh=0.02, ask=0) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")
            issuer.status = 503
            eventually(lambda: len(logged(caplog)) == 2, "the log says so")
            before = issuer.fetches
            eventually(lambda: issuer.fetches > before + 3, "it is tried again and again")
            assert tokens.verify(KEY.token(sub="new")) == "jwt:new"
            assert "being fetched" in not_verified(tokens, SigningKey("ES256", "other").token()), "nobody can know"
            issuer.status = 200
            eventually(lambda: len(logged(caplog)) == 3, "the log says that it is well again")
        assert logged(caplog) == [
            f"JWT keys: 1 in use, of {issuer.url}",
            f"JWT keys not fetched from {issuer.url}: the response has the HTTP status 503; those fetched before stay"
            " in use",
            f"JWT keys fetched again from {issuer.url}",
        ]

    @pytest.mark.usefixtures("_soon_again")
    @pytest.mark.parametrize(
        ("status", "headers", "content", "says"),
        [
            (200, {}, b"<html>", "isn't JSON"),
            (200, {}, key_set(), "has no key that verifies"),
            (200, {"Content-Length": "5000"}, key_set(KEY.public()), "the response was cut off"),
            (200, {}, b" " * (1024 * 1024 + 1), "larger than any set of keys"),
            (302, {"Location": "file:///etc/passwd"}, b"", "HTTP status 302; redirects aren't followed"),
            (204, {}, b"", "HTTP status 204"),
        ],
    )
    def test_a_response_that_is_of_no_use(
        self,
        issuer: IssuerServer,
        caplog: pytest.LogCaptureFixture,
        status: int,
        headers: dict[str, str],
        content: bytes,
        says: str,
    ) -> None:
        good = issuer.content
        issuer.status, issuer.headers, issuer.content = status, headers, content
        with fetching(issuer) as tokens:
            eventually(lambda: logged(caplog), "the log says so")
            assert says in logged(caplog)[0]
            assert logged(caplog)[0].endswith("; no JWT can be verified until then")
            assert "have not been fetched yet" in not_verified(tokens, KEY.token())
            issuer.status, issuer.headers, issuer.content = 200, {}, good
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")

    def test_a_response_that_never_ends(
        self, issuer: IssuerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_fetcher, "_RESPONSE_SECONDS", 0.5)
        issuer.drips, issuer.headers = True, {"Content-Length": "1000000"}
        with fetching(issuer):
            eventually(lambda: logged(caplog), "the log says so")
            assert "the response is not complete after 0.5 s" in logged(caplog)[0]
            issuer.drips = False

    @pytest.mark.parametrize(
        ("begins", "goes_on"),
        [
            (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ],
        ids=["a header", "the length of a chunk", "continuations"],
    )
    def test_something_before_the_body_that_never_ends(
        self, monkeypatch: pytest.MonkeyPatch, begins: bytes, goes_on: bytes
    ) -> None:
        monkeypatch.setattr(key_fetcher, "_RESPONSE_SECONDS", 0.5)

        def respond() -> None:
            with listening.accept()[0] as connection, suppress(OSError):
                connection.sendall(begins)
                while True:
                    connection.sendall(goes_on)
                    time.sleep(0.01)

        with socket.create_server(("127.0.0.1", 0)) as listening:
            issuer = threading.Thread(target=respond)
            issuer.start()
            with raises(ValueError, match="the response is not complete after 0.5 s"):
                key_fetcher.fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/keys", None)
            issuer.join(WAIT)

    def test_an_issuer_that_never_responds(
        self, issuer: IssuerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_fetcher, "_TIMEOUT", 0.2)
        issuer.open.clear()
        with fetching(issuer):
            eventually(lambda: logged(caplog), "the log says so")
            assert "timed out" in logged(caplog)[0]

    def test_an_issuer_whose_certificate_is_not_trusted(
        self, issuer: IssuerServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        (tmp_path / "other").mkdir()
        with IssuerServer(tmp_path / "other") as other:
            issuer.authorities = other.authorities
            with fetching(issuer):
                eventually(lambda: logged(caplog), "the log says so")
        assert "its certificate isn't valid: unable to get local issuer certificate" in logged(caplog)[0]
        assert issuer.fetches == 0

    def test_an_issuer_whose_authority_lacks_extensions_that_many_lack(self, tmp_path: Path) -> None:
        with IssuerServer(tmp_path, key_set(KEY.public()), issued=without_identifiers()) as issuer:
            with fetching(issuer) as tokens:
                eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")

    def test_an_issuer_that_is_not_there(self, issuer: IssuerServer, caplog: pytest.LogCaptureFixture) -> None:
        issuer.url = "https://127.0.0.1:1/keys"
        with fetching(issuer):
            eventually(lambda: logged(caplog), "the log says so")
        assert "Connection refused" in logged(caplog)[0]

    def test_proxies_of_the_environment_are_not_asked(
        self, issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        with fetching(issuer) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")

    def test_on_this_machine_without_tls(self, tmp_path: Path) -> None:
        with IssuerServer(tmp_path, key_set(KEY.public()), tls=False) as issuer, fetching(issuer) as tokens:
            eventually(lambda: is_verified(tokens, KEY.token()), "the keys are here")

    def test_authorities_that_are_none_are_named_at_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("see the wiki")
        for path, says in [(tmp_path / "missing", "No such file"), (tmp_path / "text", "it isn't PEM")]:
            with raises(ValueError, match=says):
                JsonWebTokens(settings("https://127.0.0.1/keys", ca=path), Watcher())


class TestCheck:
    """`userprofile-server check` looks at the keys as the server would."""

    @staticmethod
    def check(store_url: str, *keys: object) -> "subprocess.CompletedProcess[str]":
        policy = Path(store_url.removeprefix("sqlite:///")).with_name("policy.json")
        policy.write_text('{"name": "nobody", "allow_rules": []}')
        options = ["--policy", policy, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-keys", *keys]
        return run("userprofile-server", "check", "--store", store_url, *options)

    def test_counts_them(self, store_url: str, issuer: IssuerServer, keys: Path) -> None:
        for where in ([keys], [issuer.url, "--jwt-ca", issuer.authorities]):
            done = self.check(store_url, *where)
            assert (done.returncode, done.stderr) == (0, "")
            assert f"{where[0]}: 1 key\n" in done.stdout

    def test_says_what_is_wrong_with_them(self, store_url: str, issuer: IssuerServer, keys: Path) -> None:
        keys.write_bytes(key_set())
        untrusted = self.check(store_url, issuer.url)
        issuer.status = 404
        unknown = self.check(store_url, issuer.url, "--jwt-ca", issuer.authorities)
        nobody = self.check(store_url, "https://127.0.0.1:1/keys")
        for done, says in [
            (self.check(store_url, keys), f"{keys}: has no key that verifies signatures by ES256, EdDSA, RS256"),
            (
                untrusted,
                f"the JWT keys at {issuer.url} can't be used: its certificate isn't valid: unable to get local",
            ),
            (unknown, f"the JWT keys at {issuer.url} can't be used: the response has the HTTP status 404"),
            (nobody, "the JWT keys at https://127.0.0.1:1/keys can't be used: Connection refused"),
        ]:
            assert done.returncode == 3
            assert done.stderr.startswith(f"error: {says}")
            assert done.stderr.count("\n") == 1


def why_not(tokens: JsonWebTokens, token: str) -> str:
    try:
        tokens.verify(token)
    except (CallerUnknownError, CallerNotVerifiedError) as error:
        return str(error)
    return ""


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"keys": "a"}, "needs --jwt-issuer and --jwt-audience"),
            ({"keys": "a", "issuer": "b"}, "needs --jwt-issuer and --jwt-audience"),
            ({"issuer": "b"}, "--jwt-issuer has no effect without --jwt-keys"),
            ({"ca": "b"}, "--jwt-ca has no effect"),
            ({"keys": "a", "issuer": "b", "audience": "c", "ca": "d"}, "--jwt-ca is about an https:// URL"),
            ({"keys": "http://issuer.example/keys"}, "has to be https://"),
            ({"keys": "http://127.0.0.1.example/keys"}, "has to be https://"),
            ({"keys": "file:///etc/keys"}, "has to be a file or an https:// URL"),
            ({"keys": "https:///keys"}, "has to be a file or an https:// URL"),
            ({"keys": "https://issuer.example:99999/"}, "isn't a valid URL"),
            ({"keys": "https://issuer.example/a b"}, "isn't a valid URL"),
            ({"keys": "https://user:password@issuer.example/keys"}, "may not have a user or password"),
            ({"algorithms": "HS256"}, "may name RS256"),
            ({"algorithms": "RS256 none"}, "may name RS256"),
            ({"algorithms": " , "}, "names no algorithm"),
        ],
    )
    def test_that_are_not_safe_are_refused(self, values: dict[str, Any], says: str) -> None:
        with raises(ValidationError) as caught:
            JwtSettings(**values)
        assert says in str(caught.value)

    def test_algorithms_stand_with_spaces_or_commas_between_them(self) -> None:
        assert JwtSettings(algorithms="RS256, ES256 EdDSA").allowed == {"RS256", "ES256", "EdDSA"}


def test_what_keeps_verified_tokens_does_not_show_them(tokens: JsonWebTokens) -> None:
    token = KEY.token()
    tokens.verify(token)
    long = KEY.token(more="x" * 2048)
    for _ in range(2):
        assert tokens.verify(token) == tokens.verify(long)
    assert list(tokens._state.verified) == [token, long]
    assert token not in repr(tokens._state)
