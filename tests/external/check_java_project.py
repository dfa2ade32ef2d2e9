"""The Java client as others get it: the jar of the release, in an empty Maven project."""

import re
import zipfile
from collections.abc import Iterator
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


# README's second block, with what it leaves open.
ROTATION = """
import io.grpc.TlsChannelCredentials;
import io.grpc.util.AdvancedTlsX509KeyManager;
import io.grpc.util.AdvancedTlsX509TrustManager;
import java.io.File;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

class Rotation {{
  void create(File certificate, File key, File ca, ScheduledExecutorService scheduler) throws Exception {{
{}
  }}
}}
"""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo(tmp_path_factory.mktemp("demo")) as address:
        yield address


def test_the_example_of_the_readme_works_as_printed_in_an_empty_project(target: str, tmp_path: Path) -> None:
    # In the client's folder, whose pom.xml says which version of the plugin.
    install = f"mvn --batch-mode --quiet install:install-file -Dfile={JAR} -DpomFile={JAR.with_suffix('.pom')}"
    command(install, CLIENT)
    (tmp_path / "pom.xml").write_text(EMPTY_PROJECT.format(blocks(README, "xml")[0]))
    (tmp_path / "src/main/java").mkdir(parents=True)
    (tmp_path / "src/main/java/FirstCalls.java").write_text(blocks(README, "java")[0])
    (tmp_path / "src/main/java/Rotation.java").write_text(ROTATION.format(blocks(README, "java")[1]))
    run = re.search(r"`(mvn [^`]*exec:java [^`]*)`", (ROOT / README).read_text())
    assert run
    printed = command(run[1], tmp_path, USERPROFILE_TARGET=target)
    assert printed.replace("\x1b[0m", "") == blocks(README, "text")[0]  # Maven's own, at its end


def test_the_example_works_as_a_module(target: str, tmp_path: Path) -> None:
    jars = tmp_path / "jars"
    command(
        f"mvn --batch-mode --quiet dependency:build-classpath -DincludeScope=runtime -Dmdep.outputFile={jars}", CLIENT
    )
    modules = f"{JAR}:{jars.read_text().strip()}"
    (tmp_path / "module-info.java").write_text(
        "module hello { requires example.userprofile.client; requires io.grpc; }"
    )
    (tmp_path / "FirstCalls.java").write_text("package hello;\n" + blocks(README, "java")[0])
    command(f"javac -p {modules} -d classes module-info.java FirstCalls.java", tmp_path)
    [options] = re.findall(r"`(--add-modules \S+)`", (ROOT / README).read_text())
    line = f"java {options} -p {modules}:classes -m hello/hello.FirstCalls"
    assert command(line, tmp_path, USERPROFILE_TARGET=target) == blocks(README, "text")[0]


def test_each_class_has_its_source_and_each_public_one_of_the_client_a_page() -> None:
    jars = {kind: zipfile.ZipFile(JAR.with_stem(f"{JAR.stem}{kind}")) for kind in ("", "-sources", "-javadoc")}
    classes = {name.removesuffix(".class") for name in jars[""].namelist() if re.fullmatch(r"[^$]+\.class", name)}
    sources = {name.removesuffix(".java") for name in jars["-sources"].namelist() if name.endswith(".java")}
    assert sources == classes
    # Java's own rule: one public type for each file, of the same name.
    public = {
        name for name in sources if re.search(r"^public ", jars["-sources"].read(f"{name}.java").decode(), re.MULTILINE)
    }
    pages = {name.removesuffix(".html") for name in jars["-javadoc"].namelist()}
    assert "example/userprofile/client/UserProfileClient" in public
    assert public - pages == set()
    assert "index" in pages


def test_the_jar_holds_the_library_and_nothing_else() -> None:
    with zipfile.ZipFile(JAR) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode()
        assert archive.read("META-INF/LICENSE") == (ROOT / "LICENSE").read_bytes()
        folders = {str(PurePosixPath(name).parent) for name in archive.namelist() if not name.endswith("/")}
    assert "Automatic-Module-Name: example.userprofile.client" in manifest
    assert "Main-Class" not in manifest
    assert {folder for folder in folders if not folder.startswith("META-INF")} == {
        "example/userprofile/client",
        "example/userprofile/v1",
        "userprofile/v1",  # the contract's service config
    }
