"""The first example of the Java client's README, copied into an empty Maven project, prints what the README says."""

import os
import re
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.client_conformance import USERS
from userprofile import User
from userprofile.testing import FakeUserProfileServer

CLIENT = Path(__file__).parent.parent.parent / "clients/java"
README = (CLIENT / "README.md").read_text()

EMPTY_PROJECT = """
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>org.example</groupId>
  <artifactId>empty</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
{}
  </dependencies>
</project>
"""


def block(language: str) -> str:
    """Returns the README's first block of code in `language`."""
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} in the README"
    return found[1]


def maven(folder: Path, command: str, **environment: str) -> str:
    done = subprocess.run(
        command.split(), cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout.replace("\x1b[0m", "")  # Maven's own, at its end


@pytest.mark.timeout(900)
def test_the_first_example_works_in_an_empty_project(tmp_path: Path) -> None:
    maven(CLIENT, block("sh"))
    (tmp_path / "pom.xml").write_text(EMPTY_PROJECT.format(block("xml")))
    (tmp_path / "src/main/java").mkdir(parents=True)
    (tmp_path / "src/main/java/FirstCalls.java").write_text(block("java"))
    run = re.search(r"`(mvn [^`]*exec:java [^`]*)`", README)
    assert run
    with FakeUserProfileServer([User("johndoe", **USERS["johndoe"])]) as server:
        assert maven(tmp_path, run[1], USERPROFILE_TARGET=server.target) == block("text")


def test_the_jar_holds_the_library_and_nothing_else() -> None:
    maven(CLIENT, block("sh"))
    [jar] = (CLIENT / "target").glob("userprofile-client-*.jar")
    with zipfile.ZipFile(jar) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode()
        folders = {str(PurePosixPath(name).parent) for name in archive.namelist() if not name.endswith("/")}
    assert "Automatic-Module-Name: example.userprofile.client" in manifest
    assert "Main-Class" not in manifest
    assert {folder for folder in folders if not folder.startswith("META-INF")} == {
        "example/userprofile/client",
        "example/userprofile/v1",
        "userprofile/v1",  # the contract's service config
    }
