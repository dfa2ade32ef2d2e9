"""What could be wrong in a line: every operator, constant and statement of a file, changed one at a time."""

import ast
import difflib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

_SWAPS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: (r"is\s+not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"), ast.And: ("and", "or"), ast.Or: ("or", "and"), ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"), ast.Mult: (r"\*", "/"), ast.Div: ("/", "*"), "min": ("", "max"), "max": ("", "min"),
}  # fmt: skip


class Mutant(NamedTuple):
    """A file with other bytes at one place."""

    path: Path
    source: bytes
    start: int
    end: int
    new: bytes

    def content(self) -> bytes:
        """Returns the whole file, changed."""
        return self.source[: self.start] + self.new + self.source[self.end :]

    def diff(self) -> str:
        """Returns the change in the way of `diff`."""
        old, new = (content.decode().splitlines() for content in (self.source, self.content()))
        return "\n".join([str(self.path), *list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]])


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yields all that can be changed in a file, but for types, decorators, assertions and texts."""
    source = (ROOT / path).read_bytes()
    lines = [0, *(match.end() for match in re.finditer(b"\n", source))]

    def span(node: Any) -> tuple[int, int]:
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    def replaced(node: ast.AST, new: str) -> Iterator[Mutant]:
        yield Mutant(path, source, *span(node), new.encode())

    def swapped(operators: list[Any], operands: list[Any]) -> Iterator[Mutant]:
        for operator, (left, right) in zip(operators, pairwise(operands), strict=True):
            old, new = _SWAPS.get(type(operator), ("(?!)", ""))
            start, end = span(left)[1], span(right)[0]
            for found in re.finditer(rf"(?<![\w<>=!*/]){old}(?![\w<>=*/])".encode(), source[start:end]):
                yield Mutant(path, source, start + found.start(), start + found.end(), new.encode())

    def changed(node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left, operators, others):
                yield from swapped(operators, [left, *others])
            case ast.BoolOp(operator, values):
                yield from swapped([operator] * (len(values) - 1), values)
            case ast.BinOp(left, operator, right):
                yield from swapped([operator], [left, right])
            case ast.UnaryOp(ast.Not()):
                yield Mutant(path, source, span(node)[0], span(node)[0] + len("not"), b"")
            case ast.Constant(bool(value)):
                yield from replaced(node, str(not value))
            case ast.Constant(int(value) | float(value)):
                yield from replaced(node, str(value + 1))
            case ast.Name("min" | "max" as name):
                yield from replaced(node, _SWAPS[name][1])
            case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete():
                yield from replaced(node, "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield from replaced(node, "pass")
            case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield from replaced(value, "None")
            case ast.If(test) | ast.While(test) | ast.IfExp(test):
                if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
                    yield from replaced(test, f"(not ({source[slice(*span(test))].decode()}))")

    def visit(node: ast.AST) -> Iterator[Mutant]:
        yield from changed(node)
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if name not in ("annotation", "returns", "decorator_list") and isinstance(child, ast.AST):
                    yield from () if isinstance(child, ast.Assert | ast.JoinedStr) else visit(child)

    return visit(ast.parse(source))
