"""The examples in docs/python.md do what they say."""

import re
from pathlib import Path

import pytest

from userprofile import User
from userprofile.testing import _FAILURES, FakeUserProfileServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, fake_userprofile: FakeUserProfileServer) -> None:
    fake_userprofile.add(User("johndoe", full_name="John Doe", disabled=False), User("alice"))
    program = EXAMPLES[number].replace("localhost:50051", fake_userprofile.target).replace("100_000", "1_000")
    variables: dict[str, object] = {}
    exec(program, variables)
    if "greet" in variables:
        variables["client"].close()  # type: ignore[attr-defined]


def test_all_that_the_fake_server_can_do_is_described() -> None:
    described = PAGE.read_text().partition("## Testing your own code")[2].partition("\n## ")[0]
    with FakeUserProfileServer() as server:
        for name in dir(server):
            assert name.startswith("_") or f"`{name}" in described, name
    for reason in _FAILURES:
        assert f"`{reason}`" in described


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6
