"""The policy: who may call what, and see which fields; and `policy check`, which says so."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.canary import raises
from tests.support import GET_USER, run
from userprofile_server.rpc.decided import METHODS
from userprofile_server.security import policy as policies
from userprofile_server.security.policy import Decision, Policy, parse_policy, read_policy

BATCH = "/userprofile.v1.UserProfileService/BatchGetUsers"
HEALTH = "/grpc.health.v1.Health/Check"


def rule(name: str = "a rule", *, principals: Any = None, paths: Any = None, **more: Any) -> dict[str, Any]:
    source = {} if principals is None else {"source": {"principals": principals}}
    request = {} if paths is None else {"request": {"paths": paths}}
    return {"name": name, **source, **request, **more}


def policy(*allow: dict[str, Any], deny: Any = None) -> Policy:
    rules = {"allow_rules": allow, **({} if deny is None else {"deny_rules": deny})}
    return parse_policy(json.dumps({"name": "a policy", **rules}))


def allows(checked: Policy, principal: str | None, path: str = GET_USER) -> bool:
    return checked.decide(principal, path) is not None


class TestDecides:
    """As gRFC A43 does."""

    def test_what_no_rule_allows_is_denied(self) -> None:
        assert not allows(policy(), "token:web")
        assert not allows(policy(rule(principals=["token:web"])), "token:batch")

    def test_an_empty_rule_allows_everything_to_everybody(self) -> None:
        for principal in (None, "token:web"):
            for path in (GET_USER, HEALTH):
                assert allows(policy(rule()), principal, path)

    def test_a_rule_that_denies_wins(self) -> None:
        checked = policy(rule(), deny=[rule(principals=["token:web"], paths=[BATCH])])
        assert allows(checked, "token:web", GET_USER)
        assert not allows(checked, "token:web", BATCH)
        assert allows(checked, "token:batch", BATCH)

    def test_principal_and_path_have_to_match_and_one_of_each_suffices(self) -> None:
        checked = policy(rule(principals=["token:a", "token:b"], paths=[GET_USER, HEALTH]))
        for principal, path, allowed in [
            ("token:a", GET_USER, True),
            ("token:b", HEALTH, True),
            ("token:a", BATCH, False),
            ("token:c", GET_USER, False),
            (None, GET_USER, False),
        ]:
            assert allows(checked, principal, path) is allowed

    @pytest.mark.parametrize(
        ("pattern", "matching", "others"),
        [
            ("token:web", ["token:web"], ["token:web2", "token:we", "Token:web", "xtoken:web", None]),
            ("spiffe://a/*", ["spiffe://a/", "spiffe://a/b/c"], ["spiffe://a", "spiffe://ab/", None]),
            ("*.example.org", ["dns:a.example.org"], ["dns:example.org", "dns:a.example.org.evil", None]),
            ("*", ["token:web", "jwt:x"], [None]),
            ("", [None], ["token:web"]),
            ("jwt:a.c", ["jwt:a.c"], ["jwt:abc"]),
        ],
    )
    def test_patterns(self, pattern: str, matching: list[str | None], others: list[str | None]) -> None:
        checked = policy(rule(principals=[pattern]))
        assert [each for each in matching + others if allows(checked, each)] == matching

    @pytest.mark.parametrize(
        ("pattern", "matching"),
        [
            (GET_USER, [GET_USER]),
            ("/userprofile.v1.UserProfileService/*", [GET_USER, BATCH]),
            ("*/Check", [HEALTH]),
            ("*", [GET_USER, BATCH, HEALTH]),
        ],
    )
    def test_patterns_of_paths(self, pattern: str, matching: list[str]) -> None:
        checked = policy(rule(paths=[pattern]))
        assert [path for path in (GET_USER, BATCH, HEALTH) if allows(checked, None, path)] == matching

    def test_the_example_of_the_module_is_a_policy(self) -> None:
        text = (policies.__doc__ or "").partition("\n    {")[2].partition("\n    }\n")[0]
        checked = parse_policy("{" + text + "}")
        assert checked.decide("token:mailing", GET_USER) == Decision(
            ("mailing sees addresses",), frozenset({"username", "email"})
        )


class TestFields:
    def test_a_rule_without_any_shows_all(self) -> None:
        assert policy(rule()).decide(None, GET_USER) == Decision(("a rule",), None)

    def test_the_username_is_always_visible(self) -> None:
        for fields in ([], ["username"]):
            assert policy(rule(fields=fields)).decide(None, GET_USER) == Decision(("a rule",), frozenset({"username"}))

    def test_those_of_all_rules_that_match_add_up(self) -> None:
        checked = policy(
            rule("all", fields=["disabled"]),
            rule("web", principals=["token:web"], fields=["email"]),
            rule("root", principals=["token:root"]),
        )
        assert checked.decide(None, GET_USER) == Decision(("all",), frozenset({"username", "disabled"}))
        assert checked.decide("token:web", GET_USER) == Decision(
            ("all", "web"), frozenset({"username", "disabled", "email"})
        )
        assert checked.decide("token:root", GET_USER) == Decision(("all", "root"), None)

    def test_all_of_them_are_shown_as_without_a_list(self) -> None:
        """That way costs a call less."""
        checked = policy(rule("some", fields=["disabled"]), rule("others", fields=["email", "full_name"]))
        assert checked.decide(None, GET_USER) == Decision(("some", "others"), None)

    def test_they_are_those_of_the_contract(self) -> None:
        assert policies.FIELDS == ("username", "email", "full_name", "disabled")


class TestMemory:
    def test_a_decision_is_made_once(self) -> None:
        checked = policy(rule(principals=["token:*"], fields=["email"]))
        assert checked.decide("token:web", GET_USER) is checked.decide("token:web", GET_USER)

    def test_it_has_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(policies, "_MOST_DECISIONS", 10)
        checked = policy(rule(principals=["jwt:*"]))
        for number in range(100):
            assert allows(checked, f"jwt:{number}")
            assert not allows(checked, f"token:{number}")
        assert len(checked._decisions) <= 10

    def test_it_makes_no_difference_between_policies(self) -> None:
        checked = policy(rule())
        checked.decide(None, GET_USER)
        assert checked == policy(rule())
        assert checked != policy(rule("another"))


def document(**more: Any) -> str:
    return json.dumps({"name": "a policy", "allow_rules": [], **more})


WRONG = [
    ("", "line 1, column 1: Expecting value"),
    ('{"name": "x",\n "allow_rules": [}', "line 2, column 18: Expecting value"),
    ('{"name": "x", "allow_rules": [],}', "line 1, column "),
    ("[" * 100_000, "isn't valid JSON"),
    ('{"a": ' + "9" * 5000 + "}", "isn't valid JSON"),
    ("[]", "the policy has to be an object, {…}"),
    ("7", "the policy has to be an object, {…}"),
    ("{}", "the policy lacks name"),
    ('{"name": "x"}', "the policy lacks allow_rules"),
    (document(name=7), "name has to be a string"),
    (document(name="\x1b[31m"), "name has to be a string without control characters"),
    (document(allow_rules={}), "allow_rules has to be a list, […]"),
    (document(allow_rules=None), "allow_rules has to be a list, […]"),
    (document(deny_rules="all"), "deny_rules has to be a list, […]"),
    (document(allow_rule=[]), "allow_rule is unknown or not supported; is it allow_rules?"),
    (document(xyz=1), "xyz is unknown or not supported; known are name, allow_rules, deny_rules"),
    (document(audit_logging_options={}), "audit_logging_options is unknown or not supported"),
    (document(**{"\x1b[31m": 1}), "\\x1b[31m is unknown or not supported"),
    ('{"name": "x", "allow_rules": [], "allow_rules": [{"name": "all"}]}', "allow_rules stands there twice"),
    (document(allow_rules=[7]), "allow_rules[0] has to be an object, {…}"),
    (document(allow_rules=[{}]), "allow_rules[0] lacks name"),
    (document(allow_rules=[rule(), rule()]), "allow_rules[1].name is that of allow_rules[0] too"),
    (document(allow_rules=[rule(principals=[])]), "allow_rules[0].source.principals is empty, which would match every"),
    (document(allow_rules=[rule(paths=[])]), "allow_rules[0].request.paths is empty, which would match everything"),
    (document(allow_rules=[rule(principals="*")]), "allow_rules[0].source.principals has to be a list, […]"),
    (document(allow_rules=[rule(principals={})]), "allow_rules[0].source.principals has to be a list, […]"),
    (document(allow_rules=[rule(principals=["a", 7])]), "allow_rules[0].source.principals[1] has to be a string"),
    (document(allow_rules=[rule(), rule("b", principals=["a*b"])]), "allow_rules[1].source.principals[0] may have one"),
    (document(allow_rules=[rule(principals=["*a*"])]), "allow_rules[0].source.principals[0] may have one *, at its"),
    (document(allow_rules=[rule(principals=["**"])]), "allow_rules[0].source.principals[0] may have one *, at its"),
    (document(allow_rules=[rule(paths=["GetUser"])]), "allow_rules[0].request.paths[0] has to be a path, as /userprof"),
    (document(allow_rules=[rule(paths=[""])]), "allow_rules[0].request.paths[0] has to be a path"),
    (document(allow_rules=[rule(source={"principal": ["a"]})]), "allow_rules[0].source.principal is unknown or not"),
    (
        document(deny_rules=[rule(request={"headers": [{"key": "x", "values": ["y"]}]})]),
        "deny_rules[0].request.headers is unknown or not supported; known are paths",
    ),
    (
        '{"name": "x", "allow_rules": [{"name": "a", "source": {"principals": ["a"], "principals": ["*"]}}]}',
        "allow_rules[0].source.principals stands there twice",
    ),
    (
        document(allow_rules=[rule(fields=["emial"])]),
        "allow_rules[0].fields[0] is no public field of a user; these are",
    ),
    (document(allow_rules=[rule(fields=["hashed_password"])]), "allow_rules[0].fields[0] is no public field"),
    (document(allow_rules=[rule(fields=["*"])]), "allow_rules[0].fields[0] is no public field"),
    (document(allow_rules=[rule(fields="email")]), "allow_rules[0].fields has to be a list"),
    (document(deny_rules=[rule(fields=["email"])]), "deny_rules[0].fields is unknown or not supported"),
]


class TestWrong:
    @pytest.mark.parametrize(("text", "says"), WRONG, ids=[says[:60] for _, says in WRONG])
    def test_policies_are_refused_with_the_place(self, text: str, says: str) -> None:
        with raises(ValueError) as caught:
            parse_policy(text)
        assert str(caught.value).startswith(says)

    def test_files_are_refused_with_their_path(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.json"
        for content, says in [
            (b"[]", ": the policy has to be"),
            (b"\xff", " is not a text file"),
            (b"", ": line 1"),
            (b" " * 2**23, " is larger"),
        ]:
            path.write_bytes(content)
            with raises(ValueError) as caught:
                read_policy(path)
            assert str(caught.value).startswith(f"{path}{says}")


def check(file: object, *args: str) -> "subprocess.CompletedProcess[str]":
    return run("userprofile-server", "policy", "check", file, *args)


class TestCheck:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "policy.json"
        rules = [
            rule("mail", principals=["token:mail"], paths=["/userprofile.v1.*"], fields=["email"]),
            rule("anybody lists methods", paths=["*/ServerReflectionInfo"]),
        ]
        path.write_text(document(allow_rules=rules, deny_rules=[rule("no batches", paths=[BATCH])]))
        return path

    def test_says_that_a_policy_is_right(self, file: Path) -> None:
        done = check(file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")

    def test_says_what_is_wrong(self, file: Path) -> None:
        file.write_text(document(allow_rule=[]))
        done = check(file)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"error: {file}: allow_rule is unknown or not supported; is it allow_rules?\n"
        assert check(file.with_name("missing")).returncode == 3

    def test_shows_what_a_caller_may_call_and_see(self, file: Path) -> None:
        done = check(file, "--as", "token:mail")
        rows = [" ".join(row.split()) for row in done.stdout.splitlines()]
        assert (done.returncode, done.stderr) == (0, "")
        assert rows[:4] == [
            "METHOD MAY CALL SEES BY",
            f"{GET_USER} yes username, email mail",
            f"{BATCH} no",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo yes anybody lists methods",
        ]

    @pytest.mark.parametrize("method", ["GetUser", GET_USER])
    def test_its_status_says_whether_a_caller_may_call_a_method(self, file: Path, method: str) -> None:
        for principal, status in [("token:mail", 0), ("token:web", 1), ("anonymous", 1)]:
            assert check(file, "--as", principal, "--method", method).returncode == status
        assert check(file, "--as", "anonymous", "--method", "ServerReflectionInfo").returncode == 0

    def test_warns_of_what_cannot_be_meant_so(self, file: Path) -> None:
        doubtful = [
            rule(principals=["mail", "tokens:a", "tok*", "*.example.org", "", "dns:*", "dns:Web.example.org"]),
            rule("b", paths=["/userprofile.v1.UserProfileService/GetUsers", "*"]),
        ]
        file.write_text(document(allow_rules=doubtful))
        done = check(file)
        assert (done.returncode, done.stdout) == (0, "ok\n")
        kinds = "no principal is like that (kinds: spiffe://, dns:, token:, jwt:; dns: in lower case)"
        assert done.stderr.splitlines() == [
            f"warning: {file}: allow_rules[0].source.principals[0]: {kinds}",
            f"warning: {file}: allow_rules[0].source.principals[1]: {kinds}",
            f"warning: {file}: allow_rules[0].source.principals[6]: {kinds}",
            f"warning: {file}: allow_rules[1].request.paths[0]: matches no method that a policy decides about",
        ]

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["--as", "web"], "Invalid value for '--as': begins with spiffe://, dns:, token: or jwt:, or is anonymous"),
            (["--method", "GetUser"], "--method needs --as"),
            (["--as", "token:a", "--method", "GetUsers"], "a policy decides about GetUser, BatchGetUsers, Serv"),
        ],
    )
    def test_wrong_options(self, file: Path, args: list[str], says: str) -> None:
        done = check(file, *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in " ".join(done.stderr.split())

    def test_every_method_that_it_decides_about_is_in_the_table(self, file: Path) -> None:
        shown = check(file, "--as", "anonymous").stdout
        for method in ("GetUser", "BatchGetUsers", "v1.ServerReflection/ServerReflectionInfo"):
            assert f"{method} " in shown
        assert "Health" not in shown, "it is for everybody"


def test_the_policy_of_the_guide_means_what_it_says() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
    (text,) = re.findall(r"^```json\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    checked = parse_policy(text)
    assert checked.doubts(METHODS) == []
    mailing = checked.decide("token:mailing", BATCH)
    assert mailing is not None
    assert mailing.fields == frozenset({"username", "email"})
    assert allows(checked, "jwt:system:serviceaccount:mail:new")
    assert not allows(checked, "jwt:system:serviceaccount:mail:old")
    assert not allows(checked, "spiffe://example.org/ns/web/sa/frontend", BATCH)
