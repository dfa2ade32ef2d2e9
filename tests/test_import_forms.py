"""Whatever form a file of users has: its rows are imported, or it is said in words what it is."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.canary import CANARY, PASSWORD_CANARY, look, raises
from tests.support import run
from userprofile.text_input import TextInputError
from userprofile_server.importing import Importer
from userprofile_server.stores.base import Document
from userprofile_server.users.documents import document_key

User = dict[str, Any]

USERS: list[User] = [
    {"type": "userprofile", "username": "johndoe", "hashed_password": CANARY, "n": [1, {"a": "]}"}]},
    {"type": "userprofile", "username": "jürgen 🦊", "hashed_password": CANARY, "full_name": 'a "[{\\'},
    {"type": "userprofile", "username": "alice", "hashed_password": CANARY, "disabled": True},
]


class Imported:
    """What an import of these bytes makes of them."""

    def __init__(self, data: bytes, step: int = 65536, **options: Any) -> None:
        self.documents: list[Document] = []
        self.reports: list[str] = []
        self.job = Importer(report=self.reports.append, advance=lambda _size: None, **options)
        file = io.BytesIO(data)
        whole = file.read1
        file.read1 = lambda size=-1, /: whole(min(step, size or step))  # type: ignore[method-assign]
        self.error: str | None = None
        try:
            self.job.run(file, self)  # type: ignore[arg-type]
        except TextInputError as error:
            self.error = str(error)
        self.summary = self.job.summary()
        for text in (*self.reports, self.summary, self.error):
            look("what an import says", text)

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        self.documents += documents
        return 0

    @property
    def users(self) -> list[User]:
        return [json.loads(content) for _, content in self.documents]


def lines(*users: User, end: str = "\n", **options: Any) -> str:
    return "".join(json.dumps(user, **options) + end for user in users)


def query_result(*rows: User, status: str = "success") -> str:
    result = {"requestID": "7", "signature": {"*": "*"}, "results": rows, "status": status, "metrics": {"n": 3}}
    return json.dumps(result, indent=1)


SHAPES: dict[str, str] = {
    "lines": lines(*USERS),
    "no line end at the end": lines(*USERS).rstrip(),
    "CRLF": lines(*USERS, end="\r\n"),
    "CR": lines(*USERS, end="\r"),
    "blank lines": "\n \n" + lines(*USERS, end="\n\r\n\t\n"),
    "on one line": lines(*USERS, end=""),
    "on one line, apart": lines(*USERS, end=" "),
    "pretty": lines(*USERS, indent=2),
    "pretty, CRLF": lines(*USERS, indent=2).replace("\n", "\r\n"),
    "pretty, CR": lines(*USERS, indent="\t").replace("\n", "\r"),
    "array": json.dumps(USERS),
    "array, a row a line": "[\n" + ",\n".join(json.dumps(user) for user in USERS) + "\n]\n",
    "array, a row a line, commas first": "[" + "\n,".join(json.dumps(user) for user in USERS) + "]",
    "array, pretty": json.dumps(USERS, indent=4),
    "array, pretty, CRLF": json.dumps(USERS, indent=4).replace("\n", "\r\n"),
    "arrays": json.dumps(USERS[:1]) + "\n" + json.dumps([]) + json.dumps(USERS[1:]),
    "array of arrays": json.dumps([USERS[:1], USERS[1:]]),
    "lines of an array": "".join(f"  {json.dumps(user)},\n" for user in USERS),
    "RFC 7464": "".join(f"\x1e{json.dumps(user)}\n" for user in USERS),
    "RFC 7464, pretty": "".join(f"\x1e{json.dumps(user, indent=2)}\n" for user in USERS),
    "two files joined": lines(USERS[0]) + "\ufeff" + lines(*USERS[1:]),
    "two files joined within a line": lines(USERS[0]).strip() + "\ufeff" + lines(*USERS[1:]),
    "two arrays joined": json.dumps(USERS[:1]) + "\ufeff" + json.dumps(USERS[1:]),
    "in the bucket's name": lines(*({"my-bucket": user} for user in USERS)),
    "in the bucket's name, pretty array": json.dumps([{"users": user} for user in USERS], indent=2),
    "by key": lines({f"userprofile::{user['username']}": user for user in USERS}),
    "by key, a line each": lines(*({f"userprofile::{user['username']}": user} for user in USERS)),
    "key and value": lines(*({"key": f"userprofile::{user['username']}", "value": user} for user in USERS)),
    "id, cas and document": lines(*({"id": "userprofile::x", "cas": 17, "doc": user} for user in USERS)),
    "meta and document": lines(*({"$1": {"id": "userprofile::x", "cas": 1}, "users": user} for user in USERS)),
    "query result": query_result(*USERS),
    "query result, in the bucket's name": query_result(*({"users": user} for user in USERS)),
    "query result on one line": json.dumps({"results": USERS, "status": "success"}),
    "users in an object": json.dumps({"realm": "x", "clients": [{"id": 1}], "users": USERS, "more": {}}),
    "two such objects": json.dumps({"Resources": USERS[:1]}) + json.dumps({"Resources": USERS[1:]}),
    "such objects in an array": json.dumps([{"Resources": USERS[:1]}, {"Resources": USERS[1:]}]),
}

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [1, 7, 65536])
def test_every_shape_gives_the_same_users(shape: str, step: int) -> None:
    done = Imported(SHAPES[shape].encode(), step)
    assert (done.reports, done.error) == ([], None)
    assert done.users == USERS
    assert done.summary.startswith("3 users imported (0 replaced an older one), 0 rows rejected\n")


@pytest.mark.parametrize("shape", ["lines", "pretty, CRLF", "array", "query result"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_encoding_gives_the_same_users(shape: str, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    done = Imported(pack(SHAPES[shape].encode(encoding)))
    assert (done.reports, done.users) == ([], USERS)


@pytest.mark.parametrize("wrap", ["{}", '{{"users": {}}}', "[{}]", '[{{"key": "userprofile::a", "value":{} }}]'])
def test_a_document_stays_the_same_to_the_byte_in_every_shape(wrap: str) -> None:
    document = '{"type":"userprofile",  "username":"a", "hashed_password": "h", "n":1.10,\n "text": "\\u00e9é" }'
    assert Imported(wrap.format(document).encode()).documents == [Document(document_key("a"), document.encode())]


def damaged(*texts: str) -> bytes:
    return "\n".join(texts).encode("utf-8", "surrogateescape")


GOOD = [json.dumps(user) for user in USERS]
CUT = f'{{"username": "cut", "hashed_password": "{CANARY}", "x": '


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (damaged(GOOD[0], CUT, GOOD[1], GOOD[2]), ["line 2"]),
        (damaged(GOOD[0], CUT + '"', GOOD[1], GOOD[2]), ["line 2"]),
        (damaged(GOOD[0], CUT + "[", GOOD[1], GOOD[2]), ["line 2"]),
        (damaged(GOOD[0], CUT + "1", GOOD[1], GOOD[2]), ["line 2"]),
        (damaged(GOOD[0], CUT + "1,", GOOD[1], GOOD[2]), ["line 2"]),
        (damaged(*GOOD, CUT), ["line 4"]),
        (damaged(*GOOD, CUT + '"abc'), ["line 4"]),
        (damaged(*GOOD, CUT + "1"), ["line 4"]),
        (damaged(*GOOD, "\0" * 5000), ["line 4"]),
        (damaged(GOOD[0], "\0\0", *GOOD[1:]), ["line 2"]),
        (damaged(GOOD[0], "\udcff\udcfe", *GOOD[1:]), ["line 2"]),
        (damaged(GOOD[0], "hello, world", "# and more", *GOOD[1:]), ["line 2", "line 3"]),
        (damaged("[", *(f"  {row}," for row in GOOD)), ["line 4"]),
        (damaged("[", f"  {GOOD[0]},", f"  {CUT},", f"  {GOOD[1]},", f"  {GOOD[2]}", "]"), ["line 3"]),
        (damaged(GOOD[0] + "\x1e" + CUT + "\x1e" + GOOD[1], GOOD[2]), ["line 1, column"]),
        (damaged(GOOD[0], '"text"', "17", "true", *GOOD[1:]), ["line 2", "line 3", "line 4"]),
        (damaged(GOOD[0] + "]", *GOOD[1:]), ["line 1, column"]),
        (damaged(GOOD[0], "[" * 100_000, *GOOD[1:]), ["line 2"]),
        (damaged(GOOD[0], '{"a":' * 100_000, *GOOD[1:]), ["line 2"]),
        (damaged(GOOD[0], '{"a": NaN, "b": 1, "b": 2}', '{"n":' + "1" * 5000 + "}", *GOOD[1:]), ["line 2", "line 3"]),
        (damaged(f'[{GOOD[0]}, {{"a": NaN}}, 7, {GOOD[1]}, {GOOD[2]}]'), ["line 1, column", "line 1, column"]),
        (damaged("\n".join(json.dumps(user, indent=2) for user in USERS).replace('"n": [', '"n": [,')), ["line 1"]),
        (query_result(*USERS, status="timeout").encode(), ["line 35"]),
        (query_result(*USERS)[:-49].encode(), ["line 31"]),
        (query_result({"a": 1.5, "b": float("nan")}, *USERS).encode(), ["line 7"]),
    ],
)
@pytest.mark.parametrize("step", [5, 65536])
def test_damage_costs_no_other_row_and_is_reported_once(data: bytes, places: list[str], step: int) -> None:
    done = Imported(data, step)
    names = [user["username"] for user in done.users]
    if b'"n": [,' in data:
        assert names == ["jürgen 🦊", "alice"]
    else:
        assert names == [user["username"] for user in USERS]
    assert len(done.reports) == len(places), done.reports
    for report, place in zip(done.reports, places, strict=True):
        assert report.startswith(place), report
        assert len(report) < 200
    assert done.job.rejected == len(places)


def test_where_the_pieces_of_a_text_end_makes_no_difference() -> None:
    text = "\n".join(json.dumps(user, indent=2) for user in USERS).replace('"n": [', '"n": [,') + f"\r\n\r{CUT}"
    whole = Imported(text.encode())
    assert len(whole.reports) == 2
    for step in range(1, 50):
        done = Imported(text.encode(), step)
        assert (done.reports, done.users) == (whole.reports, whole.users), step


def workbook(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x28\xb5\x2f\xfd" + bytes(100), "compressed by zstd"),
        (workbook("users.json"), "a zip archive"),
        (workbook("[Content_Types].xml"), "an Excel workbook"),
        (b"username,email\njohndoe,j@example.com\n", "CSV"),
        (b'\xef\xbb\xbf"Username";"E-Mail"\r\njohndoe;j@example.com\r\n', "CSV"),
        ("sep=;\r\nname;mail\r\n".encode("utf-16"), "CSV"),
        ("user_name\temail\njohndoe\tj@example.com\n".encode("utf-16"), "CSV"),
        (gzip.compress(b"id,username,hashed_password\n1,johndoe,x\n"), "CSV"),
        (b"<?xml version='1.0'?>\n<users/>", "XML or HTML"),
        (b"\n<!DOCTYPE html>", "XML or HTML"),
        (b"- username: johndoe\n", "YAML"),
        (b"INSERT INTO users VALUES ('johndoe')", "SQL"),
        (gzip.compress(SHAPES["lines"].encode())[:-9], "compressed by gzip, but cut off"),
    ],
)
def test_what_holds_no_rows_is_named_once(data: bytes, message: str) -> None:
    done = Imported(data)
    assert done.error is not None
    assert done.error.startswith(message)
    assert done.reports == []


def test_rows_before_the_end_of_what_is_cut_off_are_stored() -> None:
    data = gzip.compress(lines(*({**USERS[0], "username": f"user{number}"} for number in range(5000))).encode())
    done = Imported(data[: len(data) // 2])
    assert done.error == "compressed by gzip, but cut off"
    assert 0 < len(done.users) == done.job.imported < 5000


def test_a_list_that_is_cut_off_within_a_row_gives_those_before() -> None:
    done = Imported(query_result(*USERS)[:-100].encode())
    assert done.users == USERS[:2]
    assert [report[:22] for report in done.reports] == ["line 24: not JSON: the"]


def test_documents_of_other_types_come_first_and_many_are_counted() -> None:
    foreign = [{"type": "item", "id": number, "Password": 1, "items": [{}]} for number in range(2000)]
    done = Imported(lines(*foreign, *USERS).encode())
    assert len(done.reports) == 6
    assert done.reports[0].startswith("line 1: another type of document")
    assert done.users == USERS
    assert "\nrejected: 2000 rows: another type of document" in done.summary


def test_rows_that_are_wrong_in_many_ways_are_few_lines() -> None:
    bad = "".join(f'{"x" * (number % 100 + 1)}\n[7]\n{{"username": {number}}}\n' for number in range(1000))
    done = Imported(bad.encode())
    assert len(done.reports) < 30
    assert done.job.rejected == 3000
    assert "1000 rows: not a JSON object" in done.summary


def test_users_without_a_hash_are_imported_and_counted() -> None:
    done = Imported(lines({"username": "sso"}, {"username": "null", "hashed_password": None}, *USERS).encode())
    assert [user["username"] for user in done.users][:2] == ["sso", "null"]
    assert "\n2 without a password hash\n" in done.summary


@pytest.mark.parametrize(
    "field",
    ["hashedPassword", "password_hash", "passwordHash", "hashed_pasword", "hashedpasswd", "hash", "pwd", "salt",
     "hsahed_password", "encrypted_password", "credentials", "Hashed-Password", "pasword"],
)  # fmt: skip
def test_a_misspelt_hash_is_no_user_without_one(field: str) -> None:
    done = Imported(lines({"username": "a", field: CANARY}).encode())
    assert done.users == []
    assert field in done.reports[0]


def test_fields_that_are_only_about_passwords_are_no_hash() -> None:
    user = {"username": "a", "last_password_reset": "2020-01-01T00:00:00Z", "passwordExpired": False, "hashes": None}
    assert Imported(lines(user).encode()).users == [{**user, "type": "userprofile"}]


def test_a_wrapped_object_that_is_no_profile_is_not_taken_for_one() -> None:
    done = Imported(lines({"customer": {"username": "johndoe"}}, {"order": 7, "customer": USERS[0]}).encode())
    assert done.users == []
    assert done.job.rejected == 2


def test_an_array_is_never_held_as_a_whole(tmp_path: Path) -> None:
    # In a process of its own, whose memory is bounded to less than the file's size.
    file = tmp_path / "users.json"
    row = json.dumps({**USERS[0], "username": "u", "x": "y" * 2_000_000})
    with file.open("w") as stream:
        stream.write('{"results": [')
        for number in range(100):
            stream.write(("," if number else "") + row.replace('"u"', f'"u{number}"'))
        stream.write("]}")
    limits = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (190_000_000,) * 2)"
    script = tmp_path / "limited.py"
    script.write_text(f"{limits}\nsys.argv[0] = 'userprofile-server'\nfrom userprofile_server.cli import cli\ncli()\n")
    done = run("python", script, "import", file, "--dry-run")
    assert done.stderr == ""
    assert done.stdout.startswith("100 users could be imported, 0 rows rejected\n")


def test_what_is_wrong_with_a_file_is_a_line_and_not_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text(f"username,password\njohndoe,{PASSWORD_CANARY}\n")
    done = run("userprofile-server", "import", file, "--store", f"sqlite:///{tmp_path / 'users.db'}")
    assert done.returncode == 3
    assert done.stderr == f"error: {file} is CSV, not JSON: convert it to one JSON object a line first\n"
    assert done.stdout.startswith("0 users imported")


def test_the_tests_own_reader_raises_nothing_else() -> None:
    with raises(TextInputError):
        Importer(report=print, advance=lambda _size: None).run(io.BytesIO(b"PK\x03\x04"), None)
