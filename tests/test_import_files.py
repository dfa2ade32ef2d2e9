"""What people feed to `import`: exports of other tools, in every encoding, wrapper and order."""

import gzip
import json
import tracemalloc
import unicodedata
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest

from tests.canary import CANARY, look
from tests.support import document, run
from userprofile.text_input import TextInputError
from userprofile_server.importing import Importer
from userprofile_server.importing.json_rows import JSONRows
from userprofile_server.stores.base import Document
from userprofile_server.users.documents import username_of


class Kept:
    """A store that keeps documents in memory, by username."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    def put(self, documents: Iterable[Document], *, timeout: float) -> int:
        replaced = 0
        for key, content in documents:
            replaced += username_of(key) in self.documents
            self.documents[username_of(key)] = content
        return replaced


class Imported:
    """What became of a file."""

    def __init__(self, content: bytes, **options: str) -> None:
        store = Kept()
        self.reports: list[str] = []
        job = Importer(report=self.reports.append, advance=lambda _size: None, **options)  # type: ignore[arg-type]
        self.error: TextInputError | None = None
        try:
            job.run(BytesIO(content), store)  # type: ignore[arg-type]
        except TextInputError as error:
            self.error = error
        self.summary = job.summary()
        self.users = {name: json.loads(stored) for name, stored in store.documents.items()}
        self.documents = store.documents
        for said in [*self.reports, self.summary, str(self.error)]:
            look("what an import says", said)

    @property
    def names(self) -> list[str]:
        return list(self.users)


A, B, C = (document(name, email=f"{name}@example.com") for name in ("ann", "bob", "cäcilie"))
TEXT = (A + b"\n" + B + b"\n" + C + b"\n").decode()
ALL = ["ann", "bob", "cäcilie"]


def pretty(*rows: bytes) -> bytes:
    return json.dumps([json.loads(row) for row in rows], indent=2, ensure_ascii=False).encode()


WRITTEN: dict[str, bytes] = {
    "lines": TEXT.encode(),
    "no newline at the end": TEXT.encode().rstrip(),
    "blank lines": TEXT.replace("\n", "\n\n  \n").encode(),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "byte order mark in the middle": A + b"\n\xef\xbb\xbf" + B + b"\n" + C,
    "UTF-16 of PowerShell": TEXT.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip in two members": gzip.compress(A + b"\n") + gzip.compress(B + b"\n" + C),
    "array, one row a line": b"[\n" + b",\n".join((A, B, C)) + b"\n]\n",
    "array on one line": b"[" + b",".join((A, B, C)) + b"]",
    "array, pretty": pretty(A, B, C),
    "two arrays": b"[" + A + b"]\n[" + B + b"," + C + b"]",
    "objects one after the other": A + B + b" " + C,
    "pretty objects": b"\n".join(json.dumps(json.loads(row), indent=4).encode() for row in (A, B, C)),
    "RFC 7464": b"".join(b"\x1e" + row + b"\n" for row in (A, B, C)),
    "lines with commas": b",\n".join((A, B, C)),
    "SELECT *": b"\n".join(b'{"users": ' + row + b"}" for row in (A, B, C)),
    "SELECT * with META().id": b"\n".join(
        b'{"id": "userprofile::' + json.loads(row)["username"].encode() + b'", "b": ' + row + b"}" for row in (A, B, C)
    ),
    "result of a query": b'{"requestID": "1", "results": [' + b",".join((A, B, C)) + b'], "status": "success"}',
    "documents by key": b'{"userprofile::ann": ' + A + b', "userprofile::bob": ' + B + b"}\n" + C,
    "list with a name": b'{"users": [' + b",\n".join((A, B, C)) + b"]}",
}  # fmt: skip


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_users_are_found_however_the_file_is_written(content: bytes) -> None:
    done = Imported(content)
    assert (done.names, done.reports, done.error) == (ALL, [], None)
    assert done.users["cäcilie"]["email"] == "cäcilie@example.com"


def test_a_document_is_kept_to_the_byte_in_an_array_too() -> None:
    odd = b'{"username" :"ann","hashed_password":"x", "n": 1.50, "type": "userprofile", "\\u0061": []}'
    assert Imported(b"[" + odd + b"]").documents == {"ann": odd}


OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "CSV": (b"username,email\nann,a@example.com\n", "CSV"),
    "CSV of Excel": (b"\xef\xbb\xbfUsername;E-mail\r\nann;a@example.com\r\n", "CSV"),
    "XML": (b"<?xml version='1.0'?><users/>", "XML"),
    "SQL": (b"INSERT INTO users VALUES ('ann');", "SQL"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip"),
    "Excel": (b"PK\x03\x04[Content_Types].xml" + bytes(100), "Excel"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
    "bzip2": (b"BZh91AY&SY" + bytes(100), "bzip2"),
    "SQLite": (b"SQLite format 3\0" + bytes(100), "SQLite"),
    "gzip, cut off": (gzip.compress(TEXT.encode())[:-9], "gzip, but cut off"),
    "UTF-16, cut off": (TEXT.encode("utf-16")[:-1], "cut off"),
}


@pytest.mark.parametrize(("content", "says"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_of_another_kind_is_named_once(content: bytes, says: str) -> None:
    done = Imported(content)
    assert says in str(done.error)
    assert len(done.reports) <= 1


def test_a_file_that_is_cut_off_gives_up_its_whole_rows_and_says_so() -> None:
    for content in (TEXT.encode()[:-20], pretty(A, B, C)[:-30], b"[" + A + b"," + B + b"," + C[:-5]):
        done = Imported(content)
        assert done.names == ["ann", "bob"]
        assert len(done.reports) >= 1


def test_one_bad_row_of_an_array_takes_nothing_from_the_others() -> None:
    done = Imported(b"[\n" + A + b",\n" + b'{"username": },\n' + C + b"\n]")
    assert done.names == ["ann", "cäcilie"]
    assert [report.partition(":")[0] for report in done.reports] == ["line 3"]


def test_the_place_of_a_row_is_found_without_reading_the_whole_line() -> None:
    # A query's result on one line is in memory by 20 MiB, and the place of each of its rows is needed.
    rows = JSONRows(["[" + ",".join([A.decode()] * 50_000) + "]"])
    places: list[object] = []
    for _ in rows:
        if len(places) == 40_000:
            tracemalloc.start()
        places.append(rows.place)
        if tracemalloc.is_tracing():
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert places[0] == "line 1"
    assert places[-1] == f"line 1, column {40_000 * (len(A.decode()) + 1) + 2}"
    assert peak < 100_000


def test_an_array_is_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one isn't held as a whole."""
    held: list[int] = []

    class Endless(BytesIO):
        """An array of 40 MB that is made while it is read."""

        left = 400

        def read1(self, _size: int | None = -1) -> bytes:
            held.append(len(job_rows()))
            self.left -= 1
            if self.left < 0:
                return b""
            return b"[" if self.left == 399 else document(f"user{self.left}", avatar="x" * 100_000) + b","

    from userprofile_server.importing import json_rows

    made: list[json_rows.JSONRows] = []
    original = json_rows.JSONRows.__init__

    def remember(self: json_rows.JSONRows, pieces: Iterable[str]) -> None:
        made.append(self)
        original(self, pieces)

    def job_rows() -> str:
        return made[0]._text if made else ""

    monkeypatch.setattr(json_rows.JSONRows, "__init__", remember)
    store = Kept()
    Importer(report=print, advance=lambda _size: None).run(Endless(), store)  # type: ignore[arg-type]
    assert len(store.documents) == 399
    assert max(held) < 1_000_000


def test_documents_of_another_type_are_called_that_and_their_noise_is_bounded() -> None:
    foreign = b"".join(b'{"type": "item", "id": %d}\n' % number for number in range(20_000))
    done = Imported(foreign + TEXT.encode())
    assert done.names == ALL
    assert len(done.reports) < 10
    assert all("another type of document" in report for report in done.reports)
    assert "20000 rows rejected" in done.summary
    assert "rejected: 20000 rows: another type" in done.summary


class TestPasswords:
    def test_a_user_without_one_is_imported_and_counted(self) -> None:
        done = Imported(b'{"username": "sso", "email": "s@example.com"}')
        assert done.names == ["sso"]
        assert "1 without a password hash" in done.summary

    @pytest.mark.parametrize(
        "name", ["hashed_pasword", "hashedPassword", "password_hash", "passwordHash", "Password", "pwd"]
    )
    def test_a_hash_under_another_name_is_not_taken_for_none(self, name: str) -> None:
        done = Imported(json.dumps({"username": "ann", name: CANARY}).encode())
        assert done.names == []
        assert name.casefold() in done.reports[0].casefold()


VENDORS: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "auth0": (
        "auth0",
        {"user_id": "auth0|1", "username": "ann", "email": "a@example.com", "name": "Ann", "blocked": True},
        {"username": "ann", "email": "a@example.com", "full_name": "Ann", "disabled": True},
    ),
    "firebase": (
        "firebase",
        {"localId": "ann", "email": "a@example.com", "displayName": "Ann", "disabled": True},
        {"username": "ann", "email": "a@example.com", "full_name": "Ann", "disabled": True},
    ),
    "keycloak": (
        "keycloak",
        {"id": "1", "username": "ann", "email": "a@example.com", "enabled": False},
        {"username": "ann", "email": "a@example.com", "disabled": True},
    ),
    "scim": (
        "scim",
        {"userName": "ann", "active": False, "name": {"formatted": "Ann"}, "emails": [{"value": "a@example.com"}]},
        {"username": "ann", "email": "a@example.com", "full_name": "Ann", "disabled": True},
    ),
}  # fmt: skip


class TestVendorsFlags:
    @pytest.mark.parametrize(("form", "theirs", "ours"), VENDORS.values(), ids=VENDORS)
    @pytest.mark.parametrize("wrap", ["rows", "list"])
    def test_are_read_where_the_vendor_is_named(
        self, form: str, theirs: dict[str, object], ours: dict[str, object], wrap: str
    ) -> None:
        lists = {"scim": "Resources"}
        content = json.dumps(theirs if wrap == "rows" else {lists.get(form, "users"): [theirs]})
        (user,) = Imported(content.encode(), format_=form).users.values()
        assert {name: user.get(name) for name in ours} == ours

    @pytest.mark.parametrize(
        "flag",
        [
            {"active": False},
            {"blocked": True},
            {"enabled": False},
            {"suspended": "true"},
            {"status": "SUSPENDED"},
            {"accountEnabled": False},
            {"is_active": 0},
        ],
    )
    def test_are_warned_of_where_it_is_not(self, flag: dict[str, object]) -> None:
        done = Imported(json.dumps({"username": "ann", **flag}).encode())
        assert "disabled" not in done.users["ann"]
        assert "WARNING: 1 row disabled in another system's form" in done.summary
        assert "`disabled` was NOT set" in done.summary

    @pytest.mark.parametrize("flag", [{"active": True}, {"blocked": False}, {"enabled": True}, {"status": "ACTIVE"}])
    def test_that_say_nothing_bad_are_no_warning(self, flag: dict[str, object]) -> None:
        assert "WARNING" not in Imported(json.dumps({"username": "ann", **flag}).encode()).summary

    @pytest.mark.parametrize("row", [{"disabled": False, "active": False}, {"disabled": True, "enabled": True}])
    def test_that_contradict_disabled_are_an_error(self, row: dict[str, object]) -> None:
        done = Imported(json.dumps({"username": "ann", **row}).encode())
        assert done.names == []
        assert "contradict each other" in done.reports[0]


@pytest.mark.parametrize(
    "other",
    ["Ann", "ann ", " ann", "an\u200bn", "\uff41\uff4e\uff4e", "ann\ufeff", "an\u00adn"],
    ids=["case", "space behind", "space before", "zero width", "full width", "mark", "soft hyphen"],
)
def test_names_that_look_alike_are_each_a_user_and_a_warning(other: str) -> None:
    done = Imported(A + b"\n" + document(other) + b"\n" + A)
    assert done.names == ["ann", other]
    assert [report for report in done.reports if "looks like the one on line 1" in report]
    assert "WARNING: 1 username of this file can't be distinguished from an earlier one by eye" in done.summary


def test_composed_and_decomposed_names_look_alike() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "zoë"), unicodedata.normalize("NFD", "zoë")
    done = Imported(document(composed) + b"\n" + document(decomposed))
    assert done.names == [composed, decomposed]
    assert "WARNING: 1 username" in done.summary


def test_the_command_says_what_the_file_is(tmp_path: Path, store_url: str) -> None:
    path = tmp_path / "users.csv"
    path.write_bytes(b"username,email\nann,a@example.com\n")
    done = run("userprofile-server", "import", path, "--store", store_url)
    assert done.returncode == 3
    assert f"error: {path} is CSV, not JSON: convert it to one JSON object a line first" in done.stderr
    assert done.stdout == "0 users imported (0 replaced an older one), 0 rows rejected\n"


def test_the_command_reads_a_vendors_export(tmp_path: Path, store_url: str) -> None:
    path = tmp_path / "realm.json"
    path.write_bytes(b'{"realm": "x", "users": [{"username": "ann", "enabled": false}]}')
    done = run("userprofile-server", "import", path, "--store", store_url, "--format", "keycloak")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 user imported")
