"""The public keys of an issuer of JSON Web Tokens (a JWK Set, RFC 7517). It imports PyJWT."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from userprofile.environment import read_text

_LEAST_RSA_BITS = 2048
"""Required by NIST SP 800-131A and RFC 7518 (3.3)."""

_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_MOST_BYTES = 1024 * 1024
_MOST_NAMED = 3  # unusable keys
_MOST_ALIKE = 4
"""A token with a wrong signature costs a verification for each of the keys with its `kid`."""

_TEXTS = ("kty", "kid", "use", "alg", "crv")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and its algorithms."""

    public: AllowedPublicKeys
    algorithms: frozenset[str]


@dataclass(frozen=True)
class KeySet:
    """The keys that can verify tokens, by their `kid`."""

    source: str = field(repr=False)
    """The source text. Sets with the same text are equal."""
    by_id: Mapping[str | None, tuple[Key, ...]] = field(repr=False, compare=False)
    ignored: tuple[str, ...] = field(repr=False, compare=False)
    """What is wrong with keys that aren't used, for operators."""

    def __len__(self) -> int:
        """How many keys there are."""
        return sum(map(len, self.by_id.values()))

    def find(self, key_id: str | None, algorithm: str) -> tuple[Key, ...]:
        """Returns the keys by which a token may be signed. Mostly it is one, but several may have the same `kid`.

        A token without `kid` has a key only if exactly one fits its algorithm.
        """
        keys = chain(*self.by_id.values()) if key_id is None else self.by_id.get(key_id, ())
        fitting = tuple(key for key in keys if algorithm in key.algorithms)
        return fitting[:_MOST_ALIKE] if key_id is not None or len(fitting) == 1 else ()


def read_keys(path: Path, allowed: frozenset[str]) -> KeySet:
    """Reads a JWKS file; see `parse_keys`.

    Raises:
        ValueError: the file can't be read or parsed. The text is for operators and names the path.
    """
    text = read_text(path, "set of keys", most=_MOST_BYTES)
    try:
        return parse_keys(text, allowed)
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"{path}: {problem}")


def parse_keys(text: str, allowed: frozenset[str]) -> KeySet:
    """Parses a JWK Set. Keys that can't verify one of the `allowed` algorithms are left out.

    So are damaged and short ones (RFC 7517, 5): an issuer with one of them can still replace the others.

    Raises:
        ValueError: `text` isn't a JWK Set, or has a private key, or no usable key. The message is for operators and
            contains nothing of `text`.
    """
    document = _json(text)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('isn\'t a set of keys (JWKS): {"keys": […]}')
    by_id: dict[str | None, tuple[Key, ...]] = {}
    ignored = []
    for number, each in enumerate(keys):
        if isinstance(each, dict) and each.get("kty") in tuple(_READERS) and not _PRIVATE.isdisjoint(each):
            raise ValueError(f"keys[{number}] is a private key; only the issuer may have it")
        try:
            key_id, key = _key(each, allowed)
        except ValueError as error:
            ignored.append(f"keys[{number}] {error}")
        else:
            if key is not None:
                by_id[key_id] = (*by_id.get(key_id, ()), key)
    if not by_id:
        none = f"has no key that verifies signatures by {', '.join(sorted(allowed))}"
        raise ValueError("; ".join([none, *ignored[:_MOST_NAMED]]))
    return KeySet(text, by_id, tuple(ignored[:_MOST_NAMED]))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise ValueError("isn't JSON")  # outside the except block, because the JSON error contains the text


def _algorithms(key: dict[str, Any]) -> frozenset[str]:
    """Returns the algorithms of a key, by its type (RFC 7518, 3.1) and its own `use`, `key_ops` and `alg`."""
    uses = key.get("key_ops", ["verify"])
    if key.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        return frozenset()
    match key.get("kty"), key.get("crv"):
        case "RSA", _:
            found = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
        case "EC", curve:
            found = {algorithm for algorithm, its_curve in _CURVES.items() if its_curve == curve}
        case "OKP", ("Ed25519" | "Ed448"):
            found = {"EdDSA"}
        case _:
            found = set()
    return frozenset(found & {key["alg"]} if "alg" in key else found)


def _key(key: object, allowed: frozenset[str]) -> tuple[str | None, Key | None]:
    """Returns the id of a key, and the key if it is for one of the algorithms. Raises ValueError if it is unusable."""
    if not isinstance(key, dict) or not all(isinstance(key.get(name, ""), str) for name in _TEXTS):
        raise ValueError("is damaged")
    algorithms = _algorithms(key) & allowed
    return key.get("kid"), Key(_public(key), algorithms) if algorithms else None


def _public(key: dict[str, Any]) -> AllowedPublicKeys:
    try:
        public: AllowedPublicKeys = _READERS[key["kty"]](key)
    except Exception:  # noqa: BLE001, PyJWT passes on whatever exception a wrong type causes
        raise ValueError("is damaged") from None
    if key["kty"] == "RSA" and getattr(public, "key_size", 0) < _LEAST_RSA_BITS:
        raise ValueError(f"has less than {_LEAST_RSA_BITS} bits")
    return public
