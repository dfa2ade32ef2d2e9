"""The contract's ErrorReason is the one source of reasons: each is documented there, and no code spells one."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from docs.update_readme import contract_reasons
from tests.client_conformance import TABLE
from userprofile import reasons, testing
from userprofile.v1.error_reason_pb2 import ErrorReason
from userprofile_server.rpc.error_table import ERROR_STATUSES, UNEXPECTED

ROOT = Path(__file__).parent.parent
PREFIX = "ERROR_REASON_"
CLIENTS_OWN = 1000
"""Reasons from this number on are never sent by a server."""

NUMBERS = {name.removeprefix(PREFIX): number for name, number in ErrorReason.items() if number != 0}
DOCUMENTED = {reason.name: reason for reason in contract_reasons()}


def test_every_reason_is_the_servers_or_the_clients_own() -> None:
    given = {status.reason for status in [*ERROR_STATUSES.values(), UNEXPECTED]}
    assert sorted(given) == sorted(name for name, number in NUMBERS.items() if number < CLIENTS_OWN)


def test_every_reason_has_a_name_in_python() -> None:
    names = {name: value for name, value in vars(reasons).items() if name.isupper()}
    assert names == {name: name for name in NUMBERS}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_reason_is_documented_with_its_status_and_whether_a_retry_helps(name: str) -> None:
    reason = DOCUMENTED[name]
    assert reason.number == NUMBERS[name]
    statuses = reason.status.split(" or ")
    assert set(statuses) <= {code.name for code in grpc.StatusCode}
    retry = re.search(r"(Do not retry\.|A retry may help(, [a-z ]+)?\.)$", reason.meaning)
    assert retry, reason.meaning
    for status in [*ERROR_STATUSES.values(), UNEXPECTED]:
        if status.reason == name:
            assert statuses == [status.code.name]
            assert (status.retry_delay is not None) == (retry[1] == "A retry may help.")
            assert testing._RETRY_DELAYS.get(name) == status.retry_delay


def test_the_fake_server_has_the_statuses_of_the_contract() -> None:
    assert {name: code.name for name, code in testing._STATUSES.items()} == {
        name: DOCUMENTED[name].status for name in testing._STATUSES
    }


def test_the_fake_server_can_give_every_reason_that_is_not_about_the_request() -> None:
    about_the_request = {
        reasons.USER_NOT_FOUND, reasons.MALFORMED_REQUEST, reasons.DEADLINE_EXCEEDED,
        *(name for name in NUMBERS if DOCUMENTED[name].status == "INVALID_ARGUMENT"),
    }  # fmt: skip
    servers = {name for name, number in NUMBERS.items() if number < CLIENTS_OWN}
    assert set(testing._FAILURES) == servers - about_the_request


def test_the_conformance_table_has_reasons_of_the_contract() -> None:
    def reasons_in(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (reason for key, reason in value.items() if key == "reason")
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                yield from reasons_in(each)

    found = set(reasons_in(json.loads(TABLE.read_text())))
    assert found
    assert found <= set(NUMBERS)


PYTHON = [path for name in ("client", "server") for path in (ROOT / name).rglob("*.py") if "_pb2" not in path.name]
OTHERS = [
    path
    for folder, form in [("go", "*.go"), ("node/src", "*.ts"), ("java/src/main", "*.java")]
    for path in (ROOT / "clients" / folder).rglob(form)
    if "gen" not in path.parts and not path.name.endswith("_test.go")
]


def test_python_takes_reasons_from_the_contract_and_spells_none() -> None:
    strings = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in NUMBERS
    }
    assert strings == set()
    assert len(PYTHON) > 50


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_the_other_clients_take_reasons_from_the_contract_and_spell_none(path: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)
    assert re.findall(rf"""["'`](?:{"|".join(NUMBERS)})["'`]""", code) == []


def test_the_other_clients_are_looked_at() -> None:
    assert {path.suffix for path in OTHERS} == {".go", ".ts", ".java"}
