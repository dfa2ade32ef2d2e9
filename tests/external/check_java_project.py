"""The Java client as others get it: the jar of the release, in an empty Maven project."""

import re
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.external.release import RELEASE, ROOT, VERSION, blocks, command, demo

JAR = RELEASE / f"userprofile-client-{VERSION}.jar"
CLIENT = ROOT / "clients/java"
README = "clients/java/README.md"

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


@pytest.mark.timeout(900)
def test_the_example_of_the_readme_works_as_printed_in_an_empty_project(tmp_path: Path) -> None:
    # In the client's folder, whose pom.xml says which version of the plugin.
    install = f"mvn --batch-mode --quiet install:install-file -Dfile={JAR} -DpomFile={JAR.with_suffix('.pom')}"
    command(install, CLIENT)
    (tmp_path / "pom.xml").write_text(EMPTY_PROJECT.format(blocks(README, "xml")[0]))
    (tmp_path / "src/main/java").mkdir(parents=True)
    (tmp_path / "src/main/java/FirstCalls.java").write_text(blocks(README, "java")[0])
    run = re.search(r"`(mvn [^`]*exec:java [^`]*)`", (ROOT / README).read_text())
    assert run
    with demo(tmp_path) as target:
        printed = command(run[1], tmp_path, USERPROFILE_TARGET=target)
    assert printed.replace("\x1b[0m", "") == blocks(README, "text")[0]  # Maven's own, at its end


def test_the_jar_holds_the_library_and_nothing_else() -> None:
    with zipfile.ZipFile(JAR) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode()
        folders = {str(PurePosixPath(name).parent) for name in archive.namelist() if not name.endswith("/")}
    assert "Automatic-Module-Name: example.userprofile.client" in manifest
    assert "Main-Class" not in manifest
    assert {folder for folder in folders if not folder.startswith("META-INF")} == {
        "example/userprofile/client",
        "example/userprofile/v1",
        "userprofile/v1",  # the contract's service config
    }
