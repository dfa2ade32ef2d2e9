"""What runs the console blocks of documents against a server (`make test-grpcurl`) must notice what is wrong."""

import pytest

from tests.canary import raises
from tests.console import Command, commands, log_lines, matches, problem

DOCUMENT = """\
Text, and `$ not this`.

```console
$ one
its output

  goes on
$ two \\
    --flag
$ three
```

```sh
$ not this either
```

```log
… DEBUG … [id] REASON
```
"""


def test_commands_stand_in_console_blocks_with_their_output() -> None:
    assert commands(DOCUMENT) == [
        Command(4, "one", "its output\n\n  goes on"),
        Command(8, "two \\\n    --flag", None),
        Command(10, "three", None),
    ]
    assert log_lines(DOCUMENT) == ["… DEBUG … [id] REASON"]


@pytest.mark.parametrize("document", ["```console\nno command\n```\n", " ```console\n $ a\n ```\n"])
def test_a_block_that_would_not_be_run_is_an_error(document: str) -> None:
    with raises(AssertionError):
        commands(document)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a\n\tb", "a\n\tb\n"),
        ("id: …", "id: 1b0850\n"),
        ("… [id] …", "12:00 [id] NOT_FOUND"),
        ("", "\n"),
        ("a.b (c)", "a.b (c)"),
    ],
)
def test_output_that_matches(expected: str, printed: str) -> None:
    assert matches(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a", "b"),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("a", " a"),
        ("…", "two\nlines"),
        ("a.b", "axb"),
    ],
)
def test_output_that_does_not(expected: str, printed: str) -> None:
    assert not matches(expected, printed)


def test_stdout_and_stderr_are_seen_together() -> None:
    assert problem(Command(1, "echo out; echo err >&2", "out\nerr"), {}) is None


def test_a_wrong_output_is_a_problem_whatever_the_status() -> None:
    said = problem(Command(7, "echo right", "wrong"), {})
    assert said == "line 7: $ echo right\nshould print:\nwrong\nbut prints:\nright\n"


def test_without_output_a_command_has_to_succeed() -> None:
    assert problem(Command(1, "echo anything", None), {}) is None
    assert (
        problem(Command(7, "echo why; exit 3", None), {}) == "line 7: $ echo why; exit 3\nfails with status 3:\nwhy\n"
    )


def test_a_command_that_never_ends_is_ended_with_what_it_started() -> None:
    said = problem(Command(1, "echo begun; sleep 1000 | sleep 1000", "begun"), {}, timeout=0.5)
    assert said is not None
    assert "still running" in said
