"""The Node client as others get it: the tarball of the release, in an empty project."""

import re
import tarfile
from pathlib import Path

import pytest

from tests.external.release import RELEASE, VERSION, blocks, command, demo

pytestmark = pytest.mark.timeout(600)

TARBALL = RELEASE / f"userprofile-client-{VERSION}.tgz"
README = "clients/node/README.md"


def test_the_example_of_the_readme_works_as_printed_in_an_empty_project(tmp_path: Path) -> None:
    command("npm init --yes", tmp_path)
    command(f"npm install --prefer-offline --no-audit --no-fund {TARBALL}", tmp_path)
    (tmp_path / "greet.mjs").write_text(blocks(README, "js")[0])
    with demo(tmp_path) as target:
        assert command("node greet.mjs", tmp_path, USERPROFILE_TARGET=target) == blocks(README, "text")[0]
    # CommonJS gets the same module.
    (tmp_path / "required.cjs").write_text("console.log(typeof require('userprofile-client').UserProfileClient)")
    assert command("node required.cjs", tmp_path) == "function\n"


def test_it_has_what_callers_need_and_nothing_else() -> None:
    with tarfile.open(TARBALL) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    metadata = {"LICENSE", "README.md", "package.json"}
    assert metadata | {"dist/index.js", "dist/index.d.ts"} <= names
    assert [name for name in names - metadata if not re.fullmatch(r"dist/[\w/]+\.(js|d\.ts)", name)] == []
