"""Reads rows from text with JSON objects: one per line, concatenated, pretty-printed, or in arrays.

Never keeps the whole text in memory: an array of any size is read object by object.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from userprofile.text_input import TextInputError
from userprofile_server.importing.errors import RowError
from userprofile_server.importing.wrappers import LISTS, is_list_of_rows, problem_of_list, unwrap
from userprofile_server.stores.base import MAX_DOCUMENT_BYTES

_MAX_DEPTH = 16
"""How deeply arrays of rows may be nested."""

# Allowed between two values: commas in arrays, and after lines that were copied from one; the record separators of
# RFC 7464; the byte order mark of an appended file.
_GAP = re.compile("[ \t\r\n,\x1e\ufeff]*")
_MEMBER = re.compile(r'("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*(?=[^ \t\r\n])')
_LINE_END = re.compile("[\r\n\x1e]")
_OBJECT_ON_NEXT_LINE = re.compile("[\r\n\x1e]([ \t]*)[\ufeff,]*{")

_BEFORE_ROWS = " \t\x1e\ufeff[,"
"""The maximum indentation of a row that counts as the first of its line."""

_INDENTATION = 256

# An error this close to the end of the text may be due to a literal that hasn't been read completely.
_LITERAL_CHARACTERS = 16

_TOO_DEEP = "unsupported JSON: nested too deeply"
_TOO_LONG = f"longer than {MAX_DOCUMENT_BYTES} bytes"
_CUT_OFF = "not JSON: the file ends in the middle of the row"

_MARKUP = re.compile(r"<[!?a-zA-Z]")
_CSV_HEADER = re.compile(r"""(?=[^\r\n]*[,;\t|])(?=[^\r\n{}\[\]:<>]*(?:[\r\n]|$))[^\r\n]*""")
_CSV_COLUMNS = frozenset(
    {"username", "user", "userid", "login", "email", "emailaddress", "name", "id", "uid", "localid"}
)
_YAML = re.compile(r"(---[ \t]*[\r\n]|(- +)?(username|users|email|name):\s)")
_SQL = re.compile(r"(?i)(insert into|create table|pragma |begin transaction|-- )")


class Row(NamedTuple):
    """One JSON value at a place where a row is expected."""

    value: dict[str, Any] | None
    """The object; None if the row is bad: see `problem`."""
    source: str
    """The object's own text, unchanged."""
    problem: RowError | None = None


class JSONRows:
    """Iterates over the rows of a text. After each row, `line` and `place` say where it begins."""

    def __init__(self, pieces: Iterable[str]) -> None:
        """Takes the text in pieces of any size."""
        self.line = 1
        """The line, counted from 1, where the latest row begins."""
        self._pieces = iter(pieces)
        self._ended = False
        self._text = ""
        self._at = 0
        """The position of the latest value in the text, or of the next one."""
        self._counted = 0
        """The position up to which line ends are counted."""
        self._line_began = 0
        """The position at which the current line begins; negative if that part of the text was dropped."""
        self._blank_before = True
        """Whether the dropped part of the current line was blank."""
        self._place: str | None = None
        self._lists: list[_List] = []
        self._flaw: str | None = None
        self._decode = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=self._int, parse_constant=self._constant
        ).raw_decode

    @property
    def place(self) -> str:
        """Where the latest row begins: `line 7`, or `line 1, column 300` if it isn't the first of its line."""
        if self._place is not None:
            return self._place
        # Called for every row, so it looks back only as far as the longest indentation.
        start = max(self._line_began, 0)
        indented = self._at - start <= _INDENTATION and (self._line_began >= 0 or self._blank_before)
        if indented and not self._text[start : self._at].strip(_BEFORE_ROWS):
            return f"line {self.line}"
        return f"line {self.line}, column {self._at - self._line_began + 1}"

    def __iter__(self) -> Iterator[Row]:
        """Yields every row, good or bad.

        Raises:
            TextInputError: the text is in another format.
        """
        if self._next():
            self._name_other_text()
        while self._next():
            self._place = None
            letter = self._text[self._at]
            if letter == "{" or (letter not in "[]}" and not (self._lists and self._lists[-1].members is not None)):
                yield from self._value()
            elif letter == "[":
                if problem := self._open(_List(self.line)):
                    yield problem
            elif letter in "]}":
                yield from self._close(letter)
            else:
                yield from self._member()
        if self._lists:
            self._place = f"line {self.line}"
            opened = self._lists[0].line
            yield _bad("the file ends inside the list that begins", f" on line {opened}; are there more rows?")

    # Moving on

    def _next(self) -> bool:
        """Moves to the next value. Returns False at the end of the text."""
        while True:
            found = _GAP.match(self._text, self._at)
            assert found is not None  # it also matches the empty string
            self._at = found.end()
            if self._at < len(self._text):
                self._count()
                return True
            if not self._read_more():
                self._count()
                return False

    def _count(self) -> None:
        """Counts the lines up to the current position."""
        start, self._counted = self._counted, self._at
        lines = self._text.count("\n", start, self._at)
        if (returns := self._text.count("\r", start, self._at)) > 0:
            lines += returns - self._text.count("\r\n", start, self._at)
        if lines:
            self.line += lines
            self._line_began = max(self._text.rfind("\n", start, self._at), self._text.rfind("\r", start, self._at)) + 1

    def _read_more(self) -> bool:
        """Reads at least as much text as the value has so far, and drops the text before it. False at the end."""
        if self._ended:
            return False
        self._count()
        start = max(self._line_began, 0)
        if self._line_began < 0:
            self._blank_before = self._blank_before and not self._text[: self._at].strip(_BEFORE_ROWS)
        else:
            self._blank_before = not self._text[start : self._at].strip(_BEFORE_ROWS)
        kept = self._text[self._at :]
        pieces = [kept]
        size = 0
        while size <= len(kept) and not self._ended:
            if piece := next(self._pieces, None):
                pieces.append(piece)
                size += len(piece)
            elif piece is None:
                self._ended = True
        self._line_began -= self._at
        self._text = "".join(pieces)
        self._at = self._counted = 0
        return True

    def _skip(self, pattern: re.Pattern[str], indent: int | None = None) -> None:
        """Moves to the next match of `pattern` after the value's first character, or to the end of the text."""
        start = self._at + 1
        while True:
            for found in pattern.finditer(self._text, start):
                if indent is None or len(found[1]) <= indent:
                    self._at = found.start()
                    return
            # A line end and the indentation after it may be in different pieces.
            line_end = max(self._text.rfind(letter, start) for letter in "\r\n\x1e")
            near = line_end >= 0 and len(self._text) - line_end < MAX_DOCUMENT_BYTES
            self._at = line_end if near and not self._ended else len(self._text)
            if not self._read_more():
                return
            start = 0

    # Values

    def _value(self) -> Iterator[Row]:
        """Yields the rows of the value that begins here: usually one."""
        while True:
            self._flaw = None
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                flaw, position = error.msg, error.pos
            except RecursionError:
                flaw, position = _TOO_DEEP, self._at
            else:
                if end < len(self._text) or self._ended or self._text[end - 1] in '}]"':
                    break
                flaw, position = "", end
            # Handled outside the except block, because the json module's errors refer to the text.
            unfinished = flaw.startswith("Unterminated string") or position >= len(self._text) - _LITERAL_CHARACTERS
            if unfinished and flaw != _TOO_DEEP:
                if len(self._text) - self._at > MAX_DOCUMENT_BYTES:
                    flaw, position = _TOO_LONG, len(self._text)
                elif self._read_more() or not flaw:
                    continue
                elif flaw.startswith("Unterminated string") or position >= len(self._text.rstrip()):
                    flaw = _CUT_OFF
            if self._begins_list():
                yield from self._enter_list()
            else:
                yield self._reject(flaw, position)
            return
        source = self._text[self._at : end]
        if not isinstance(value, dict):
            yield _bad("not a JSON object")
            self._at = end
        elif is_list_of_rows(value):
            yield from self._enter_list()
        elif self._flaw is not None:
            yield _bad(f"unsupported JSON: {self._flaw}")
            self._at = end
        elif "username" in value or "type" in value:
            yield Row(value, source)
            self._at = end
        else:
            for inner in unwrap(value, source):
                yield Row(*inner)
            self._at = end

    def _reject(self, flaw: str, position: int) -> Row:
        """Returns the error of the current value, and skips to where the next one may begin."""
        self._place = self.place
        letter = self._text[self._at]
        line_end = _LINE_END.search(self._text, self._at)
        several_lines = letter == "{" and line_end is not None and line_end.start() < position
        indent = self._text[max(self._line_began, 0) : self._at]
        column = position - self._line_began + 1
        # In an array on a single line nothing marks the next row.
        lost = "; the rest of the line is skipped" if self._lists and self._lists[-1].line == self.line else ""
        if several_lines:
            self._skip(_OBJECT_ON_NEXT_LINE, len(indent) - len(indent.lstrip(" \t")))
        else:
            self._skip(_LINE_END)
        if self._ended and self._at >= len(self._text):
            self._lists.clear()  # this error already reports that they aren't closed
        if flaw in (_TOO_LONG, _CUT_OFF):
            return _bad(flaw)
        if flaw == _TOO_DEEP:
            return _bad(flaw, lost)
        if letter == "\0":
            return _bad("not JSON: zero bytes", f"; was the file written completely?{lost}")
        if letter == "\x1b":
            return _bad("not JSON: terminal escape sequences", lost)
        if "\udc80" <= letter <= "\udcff":
            return _bad("not UTF-8", lost)
        where = "; the row is cut off, or wrong on a later line" if several_lines else f" at column {column}"
        return _bad(f"not JSON: {flaw}", where + lost)

    # Lists: arrays, and objects that have the rows in an array

    def _open(self, opened: "_List") -> Row | None:
        if len(self._lists) >= _MAX_DEPTH:
            while self._lists and self._lists[-1].line == self.line:
                self._lists.pop()
            return self._reject(_TOO_DEEP, self._at)
        self._lists.append(opened)
        self._at += 1
        return None

    def _close(self, letter: str) -> Iterator[Row]:
        if not self._lists or (self._lists[-1].members is None) != (letter == "]"):
            yield self._reject(f"unmatched {letter}", self._at)
            return
        closed = self._lists.pop()
        self._place = self.place
        self._at += 1
        if closed.members is not None and (problem := problem_of_list(closed.members)) is not None:
            yield _bad(problem)

    def _begins_list(self) -> bool:
        """Whether the value here is an object with its rows in an array."""
        at = self._at + 1
        while self._text[self._at] == "{" and (member := _MEMBER.match(self._text, self._gap_end(at))):
            name = json.loads(member[1])
            if name in LISTS and self._text[member.end()] == "[":
                return True
            if name in ("username", "type"):
                return False
            try:
                _, at = self._decode(self._text, member.end())
            except (ValueError, RecursionError):
                return False
        return False

    def _enter_list(self) -> Iterator[Row]:
        if problem := self._open(_List(self.line, {})):
            yield problem

    def _member(self) -> Iterator[Row]:
        """Reads one member of an object with its rows in an array. Opens the array if this member is it."""
        members = self._lists[-1].members
        assert members is not None
        while (member := _MEMBER.match(self._text, self._at)) is None:
            if len(self._text) - self._at > MAX_DOCUMENT_BYTES or not self._read_more():
                yield self._reject("Expecting a field's name", self._at)
                return
        name = json.loads(member[1])
        self._at = member.end()
        if name in LISTS and self._text[self._at] == "[":
            self._lists.append(_List(self.line))
            self._at += 1
            return
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError):
                end = None
            if end is not None and (end < len(self._text) or self._ended):
                break
            if len(self._text) - self._at > MAX_DOCUMENT_BYTES or not self._read_more():
                yield self._reject("Expecting value", self._at)
                return
        if isinstance(value, str | int):
            members[name] = value
        self._at = end

    def _gap_end(self, at: int) -> int:
        found = _GAP.match(self._text, at)
        assert found is not None
        return found.end()

    # Hooks of json for objects, integers and NaN. They record flaws instead of raising, so that the row's end is found.

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            self._flaw = "duplicate field"
        return value

    def _int(self, digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
            self._flaw = "a number is too long"
            return 0

    def _constant(self, name: str) -> None:
        self._flaw = f"{name} is not a number in JSON"

    def _name_other_text(self) -> None:
        """Raises TextInputError if the text looks like another format."""
        beginning = self._text[self._at : self._at + 4096]
        first_line = re.split("[\r\n]", beginning, maxsplit=1)[0]
        cells = {re.sub("[^a-z]", "", cell.lower()) for cell in re.split("[,;\t|]", first_line)}
        separator = re.match("sep=.[\r\n]", beginning)
        problem = None
        if _MARKUP.match(beginning):
            problem = "XML or HTML"
        elif separator or (_CSV_HEADER.match(beginning) and cells & _CSV_COLUMNS):
            problem = "CSV"
        elif _YAML.match(beginning):
            problem = "YAML"
        elif _SQL.match(beginning):
            problem = "SQL"
        if problem is not None:
            raise TextInputError(f"{problem}, not JSON: convert it to one JSON object a line first")


class _List(NamedTuple):
    """An array of rows that is being read, or an object with such an array."""

    line: int
    members: dict[str, Any] | None = None
    """For an object, its members so far, except arrays and objects; None for an array."""


def _bad(kind: str, detail: str = "") -> Row:
    return Row(None, "", RowError(kind, detail))
