"""The lists of CONTRIBUTING.md name every file in which one of the kind stands already."""

import fnmatch
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Specimen(NamedTuple):
    """One of the kind that a list is about, which a file mentions if all patterns are found in it, in any case."""

    patterns: tuple[str, ...]
    exceptions: dict[str, str]
    """The files that mention it and need not be touched for another one, by glob, and why."""
    without: frozenset[str] = frozenset()
    """The files of the list that this specimen doesn't need."""


PROSE = {
    "CHANGELOG.md": "every list's last step",
    "CONTRIBUTING.md": "the lists",
    "docs/architecture.md": "decisions",
    "docs/deployment.md": "what deploy/ has",
    "deploy/*": "examples of settings",
    "docs/performance*": "measurements",
    "docs/capacity*": "what follows from them",
}
OWN = "tests of this one"
TESTS = {"tests/test_*.py": OWN, "tests/clients/test_*.py": OWN, "tests/external/*": OWN}
EXAMPLES = {"tests/conftest.py": "users of the tests"}

LISTS = {
    "A public field": Specimen(
        (r"\bemail\b", r"full_?name", r"\bdisabled\b"),
        {
            **PROSE,
            **TESTS,
            **EXAMPLES,
            "bench/*": "the tutorial's user, as others serve it",
            "clients/java/src/test/*": OWN,
            "demo/users.jsonl": "an example",
            "docs/python.md": "an example",
            "server/userprofile_server/importing/other_systems.py": "what other systems call it",
        },
    ),
    "A method": Specimen(
        (r"\bget_?user\b",),
        {
            **PROSE,
            **TESTS,
            "*_test.go": OWN,
            "clients/java/examples/*": "an example",
            "clients/java/*/Batch.java": "the user of a result",
            "clients/java/src/test/*": OWN,
            "clients/node/test/*": OWN,
            "tests/clients/*": OWN,
            "tests/*": "the first method stands for all",
            "bench/*": "what is measured",
            "Makefile": "an example",
            "client/userprofile/__init__.py": "an example",
            "client/userprofile/cli.py": "a command for people",
            "server/userprofile_server/callers_cli.py": "an example",
            "server/userprofile_server/security/policy.py": "an example",
            "docs/security.md": "an example",
            "clients/go/examples/*": "an example",
            "docs/metrics.md": "an example",
            "client/userprofile/responses.py": "the outcome of one username, for every method",
            "clients/go/batches.go": "the outcome of one username, for every method",
        },
    ),
    "A store": Specimen(
        (r"\bsqlite\b", r"\bcouchbase\b"),
        {
            **PROSE,
            **TESTS,
            "Makefile": "targets of one store",
            "bench/*": "what is measured",
            "docs/couchbase.md": "that store's own",
            "docs/processes.md": "what was measured, and sockets to a cluster",
            "docs/limits.md": "what was measured",
            "docs/security.md": "links to what protects each store",
            "docs/operations.md": "what to do about each failure",
        },
        without=frozenset({"tests/store_contract/dictionary_store.py"}),
    ),
    "A reason": Specimen(
        (r"profile_?too_?large", r"corrupt_?(document|profile)"),
        {**PROSE, **TESTS, "docs/security.md": "what they give away"},
    ),
    "A metric": Specimen(
        (r"\bqueue_age\b|userprofile_queue_age_seconds",),
        {**PROSE, **TESTS},
        without=frozenset(
            {f"deploy/prometheus/{name}" for name in ("rules.yaml", "rules.test.yaml")} | {"docs/operations.md"}
        ),
    ),
    "A setting": Specimen(
        (r"drain.grace",),
        {
            **PROSE,
            **TESTS,
            "tests/fake_supervisor.py": OWN,
            "docs/processes.md": "what signals do with several processes",
            "docs/operations.md": "settings that matter",
        },
    ),
}


GENERATED = re.compile(
    r"/(\.venv|\.tools|\.\w+_cache|build|dist|gen|node_modules|target|__pycache__)/|_pb2|^/client/userprofile/v1/.*json$"
)


@cache
def tracked() -> list[str]:
    """The files of the repository, by their path. A copy without git has generated ones too."""
    if not (ROOT / ".git").exists():
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        return [str(path) for path in paths if (ROOT / path).is_file() and not GENERATED.search(f"/{path}")]
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def named_in(title: str) -> set[str]:
    """The files that the list with this title names, in backticks and by their path from the root."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"CONTRIBUTING.md has no list {title!r}"
    names = re.findall(r"`([\w./-]+)`", found[1])
    tops = {name.split("/")[0] for name in tracked()}
    return {name for name in names if name.split("/")[0] in tops and not name.endswith("/")}


def mentioning(specimen: Specimen) -> set[str]:
    found = set()
    for name in tracked():
        text = (ROOT / name).read_text(errors="replace")
        if all(re.search(pattern, text, re.IGNORECASE) for pattern in specimen.patterns):
            found.add(name)
    return found


@pytest.mark.parametrize("title", LISTS)
def test_a_list_names_every_file_and_no_other(title: str) -> None:
    specimen, named = LISTS[title], named_in(title)
    problems = [f"{name} is in the list, and doesn't exist" for name in sorted(named - set(tracked()))]
    found = mentioning(specimen)
    where = " and ".join(specimen.patterns)
    problems += [
        f"{name} is in the list, and doesn't mention {where}"
        for name in sorted((named & set(tracked())) - found - specimen.without)
    ]
    problems += [
        f"{name} mentions {where}, and is not in the list"
        for name in sorted(found - named)
        if not any(fnmatch.fnmatch(name, pattern) for pattern in specimen.exceptions)
    ]
    assert not problems, f"CONTRIBUTING.md, list {title!r}:\n" + "\n".join(problems)


def test_every_list_is_checked() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    how_to_add = text.partition("\n## How to add\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.*)$", how_to_add, re.MULTILINE) == list(LISTS)
