"""What `make test-mutants` takes for a wrong line."""

import ast
from pathlib import Path

from tools.mutants import mutants_of

SOURCE = b'''\
"""Text, and \xc3\xbcmlauts that move what stands behind them."""
LIMIT: int = 3
async def f(a: int = 0, *, quick: bool = True) -> float | None:
    """Text."""
    if a <= 1 and not (quick or a is None): x.y = "\xc3\xbc" + str(a)
    elif a not in [2] and f"{a + 1}":
        del a
    assert a == 2
    while a: await f(max(a, 2.5))
    if a:
        raise ValueError
    a -= 1
    return None if quick else a * 2
'''
WRONG = """\
LIMIT: int = 4
async def f(a: int = 1, *, quick: bool = True) -> float | None:
async def f(a: int = 0, *, quick: bool = False) -> float | None:
    if a < 1 and not (quick or a is None): x.y = "ü" + str(a)
    if a <= 2 and not (quick or a is None): x.y = "ü" + str(a)
    if a <= 1 or not (quick or a is None): x.y = "ü" + str(a)
    if a <= 1 and  (quick or a is None): x.y = "ü" + str(a)
    if a <= 1 and not (quick and a is None): x.y = "ü" + str(a)
    if a <= 1 and not (quick or a is not None): x.y = "ü" + str(a)
    if a <= 1 and not (quick or a is None): pass
    if a <= 1 and not (quick or a is None): x.y = "ü" - str(a)
    elif a in [2] and f"{a + 1}":
    elif a not in [3] and f"{a + 1}":
    elif a not in [2] or f"{a + 1}":
        pass
    while (not (a)): await f(max(a, 2.5))
    while a: pass
    while a: await f(min(a, 2.5))
    while a: await f(max(a, 3.5))
    if (not (a)):
        pass
    pass
    a -= 2
    return None
    return None if (not (quick)) else a * 2
    return None if quick else a / 2
    return None if quick else a * 3
"""


def test_each_operator_constant_and_statement_is_changed_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_bytes(SOURCE)
    mutants = list(mutants_of(path))
    for mutant in mutants:
        ast.parse(mutant.content())
    added = [line[1:] for mutant in mutants for line in mutant.diff().splitlines() if line.startswith("+")]
    assert sorted(added) == sorted(WRONG.splitlines())
    assert path.read_bytes() == SOURCE
