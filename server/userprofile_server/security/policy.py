"""The policy: who may call which methods and see which fields. The syntax is a subset of gRPC's (gRFC A43).

https://github.com/grpc/proposal/blob/master/A43-grpc-authorization-api.md

    {
      "name": "users",
      "allow_rules": [
        {
          "name": "mailing sees addresses",
          "source": {"principals": ["token:mailing", "spiffe://example.org/ns/mail/*"]},
          "request": {"paths": ["/userprofile.v1.UserProfileService/*"]},
          "fields": ["email"]
        }
      ],
      "deny_rules": []
    }

A call that matches a deny rule is denied. Any other call is allowed if it matches an allow rule. A rule matches if one
of its principals and one of its paths match; a missing list matches everything. A pattern is an exact value (`abc`), a
prefix (`abc*`) or a suffix (`*abc`). `*` matches every principal, that is every caller with an identity. The empty
principal matches callers without an identity.

`fields` is our extension: the fields of `User` that an allow rule shows in addition to the username. The fields of all
matching rules are combined; a rule without `fields` shows all. Unknown and unsupported keys (`headers`) are errors,
never ignored. So is an empty list of principals or paths, which would match everything in A43.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from userprofile.environment import nearest, read_text
from userprofile.printable import printable, shortened
from userprofile.v1.user_profile_pb2 import User

FIELDS = tuple(User.DESCRIPTOR.fields_by_name)
"""The public fields of a user."""

ALWAYS_VISIBLE = "username"

_ALL = frozenset(FIELDS)

KINDS = ("spiffe://", "dns:", "token:", "jwt:")
"""The prefixes of principals: a client certificate's SPIFFE URI or DNS name, a token's name, the `sub` of a JWT."""

_MOST_BYTES = 4 * 1024 * 1024
_MOST_DECISIONS = 10_000
"""Maximum number of cached decisions: there may be as many JWT principals as users."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an allowed call may see."""

    rules: tuple[str, ...]
    """The names of the rules that allow the call."""
    fields: frozenset[str] | None
    """The visible fields of User, always with the username; None for all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it matches, and the fields that an allow rule shows."""

    name: str
    principals: tuple[str, ...] | None
    """Patterns; None matches all callers, also those without an identity."""
    paths: tuple[str, ...] | None
    """Patterns; None matches all methods."""
    fields: frozenset[str] | None = None

    def matches(self, principal: str, path: str) -> bool:
        """Whether the rule matches a call. The principal is empty for a caller without an identity."""
        return _matches(self.principals, principal) and _matches(self.paths, path)


@dataclass(frozen=True)
class Policy:
    """All rules."""

    name: str
    allow_rules: tuple[Rule, ...]
    deny_rules: tuple[Rule, ...]
    _decisions: dict[tuple[str | None, str], Decision | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def decide(self, principal: str | None, path: str) -> Decision | None:
        """Returns what `principal` may see of the method at `path`, None if it may not call the method.

        `principal` is None for a caller without an identity. `path` must be one of the server's methods, because
        decisions are cached.
        """
        try:
            return self._decisions[principal, path]
        except KeyError:
            decision = self._decide(principal or "", path)
        if len(self._decisions) >= _MOST_DECISIONS:
            self._decisions.clear()
        self._decisions[principal, path] = decision
        return decision

    def _decide(self, principal: str, path: str) -> Decision | None:
        if any(rule.matches(principal, path) for rule in self.deny_rules):
            return None
        matching = [rule for rule in self.allow_rules if rule.matches(principal, path)]
        if not matching:
            return None
        shown = [_ALL if rule.fields is None else rule.fields for rule in matching]
        fields = frozenset({ALWAYS_VISIBLE}.union(*shown))
        return Decision(tuple(rule.name for rule in matching), None if fields == _ALL else fields)

    def doubts(self, paths: Iterable[str]) -> list[str]:
        """Returns warnings about probable mistakes: patterns that match none of `paths`, or no kind of principal."""
        paths = list(paths)
        found = []
        for rules, where in ((self.allow_rules, "allow_rules"), (self.deny_rules, "deny_rules")):
            for number, rule in enumerate(rules):
                place = f"{where}[{number}]"
                for index, pattern in enumerate(rule.principals or ()):
                    if not _can_match_a_principal(pattern):
                        known = f"{', '.join(KINDS)}; dns: in lower case"
                        found.append(f"{place}.source.principals[{index}]: no principal is like that (kinds: {known})")
                for index, pattern in enumerate(rule.paths or ()):
                    if not any(_matches((pattern,), path) for path in paths):
                        found.append(f"{place}.request.paths[{index}]: matches no method that a policy decides about")
        return found


def read_policy(path: Path) -> Policy:
    """Reads a policy file.

    Raises:
        ValueError: the file can't be read or isn't a policy. The text is for operators, with the path and the place.
    """
    text = read_text(path, "policy", most=_MOST_BYTES)
    try:
        return parse_policy(text)
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"{path}: {problem}")


def parse_policy(text: str) -> Policy:
    """Parses a policy, which is JSON.

    Raises:
        ValueError: `text` isn't a policy. The message is for operators, with the place.
    """
    try:
        document = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (RecursionError, ValueError):  # nested too deeply; a number with thousands of digits
        problem = "isn't valid JSON"
    else:
        return _policy(document)
    raise ValueError(problem)


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its keys, duplicates included."""


def _policy(document: object) -> Policy:
    known = _members(document, "", required=("name", "allow_rules"), optional=("deny_rules",))
    return Policy(
        _text(known["name"], "name"),
        _rules(known["allow_rules"], "allow_rules", allow=True),
        _rules(known.get("deny_rules", []), "deny_rules", allow=False),
    )


def _rules(value: object, place: str, *, allow: bool) -> tuple[Rule, ...]:
    rules = [_rule(each, f"{place}[{number}]", allow=allow) for number, each in enumerate(_list(value, place))]
    names: dict[str, int] = {}
    for number, rule in enumerate(rules):
        if names.setdefault(rule.name, number) != number:
            _refuse(f"{place}[{number}].name", f"is that of {place}[{names[rule.name]}] too")
    return tuple(rules)


def _rule(value: object, place: str, *, allow: bool) -> Rule:
    known = _members(value, place, required=("name",), optional=("source", "request", *(("fields",) if allow else ())))
    source = _members(known.get("source", _Object()), f"{place}.source", optional=("principals",))
    request = _members(known.get("request", _Object()), f"{place}.request", optional=("paths",))
    return Rule(
        _text(known["name"], f"{place}.name"),
        _patterns(source, "principals", f"{place}.source"),
        _patterns(request, "paths", f"{place}.request"),
        _fields(known["fields"], f"{place}.fields") if "fields" in known else None,
    )


def _patterns(known: dict[str, Any], key: str, place: str) -> tuple[str, ...] | None:
    if key not in known:
        return None
    place = f"{place}.{key}"
    patterns = tuple(_text(each, f"{place}[{index}]") for index, each in enumerate(_list(known[key], place)))
    if not patterns:
        _refuse(place, f"is empty, which would match everything; to mean that, leave {key} out")
    for index, pattern in enumerate(patterns):
        if pattern.count("*") > 1 or "*" in pattern[1:-1]:
            _refuse(f"{place}[{index}]", "may have one *, at its beginning or at its end")
        if key == "paths" and not pattern.startswith(("/", "*")):
            _refuse(f"{place}[{index}]", "has to be a path, as /userprofile.v1.UserProfileService/GetUser")
    return patterns


def _fields(value: object, place: str) -> frozenset[str]:
    names = [_text(each, f"{place}[{index}]") for index, each in enumerate(_list(value, place))]
    for index, name in enumerate(names):
        if name not in FIELDS:
            _refuse(f"{place}[{index}]", f"is no public field of a user; these are {', '.join(FIELDS)}")
    return frozenset(names)


def _members(
    value: object, place: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(value, _Object):
        _refuse(place, "has to be an object, {…}")
    known: dict[str, Any] = {}
    for key, member in value:
        here = f"{place}.{_shown(key)}" if place else _shown(key)
        if key not in (*required, *optional):
            near = nearest(key[:80], (*required, *optional), str)
            hint = f"is it {near}?" if near else f"known are {', '.join((*required, *optional))}"
            _refuse(here, f"is unknown or not supported; {hint}")
        if key in known:
            _refuse(here, "stands there twice")
        known[key] = member
    for key in required:
        if key not in known:
            _refuse(place, f"lacks {key}")
    return known


def _list(value: object, place: str) -> list[object]:
    if not isinstance(value, list) or isinstance(value, _Object):
        _refuse(place, "has to be a list, […]")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        _refuse(place, "has to be a string without control characters")
    return value


def _refuse(place: str, problem: str) -> NoReturn:
    raise ValueError(f"{place or 'the policy'} {problem}")


def _shown(key: str) -> str:
    return printable(shortened(key, 80))


def _matches(patterns: tuple[str, ...] | None, value: str) -> bool:
    return patterns is None or any(_matches_one(pattern, value) for pattern in patterns)


def _matches_one(pattern: str, value: str) -> bool:
    if pattern == "*":
        return bool(value)
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return value == pattern


def _can_match_a_principal(pattern: str) -> bool:
    if pattern.startswith("*") or not pattern:
        return True
    if pattern.startswith("dns:") and pattern != pattern.lower():
        return False
    if pattern.endswith("*"):
        beginning = pattern[:-1]
        return any(kind.startswith(beginning) or beginning.startswith(kind) for kind in KINDS)
    return any(pattern.startswith(kind) and pattern != kind for kind in KINDS)
