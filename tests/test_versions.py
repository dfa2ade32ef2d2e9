"""One version, pyproject.toml's, in what every language publishes."""

import tomllib
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_java_client_has_the_projects_version() -> None:
    pom = ElementTree.parse(ROOT / "clients/java/pom.xml").getroot()
    assert pom.findtext("{http://maven.apache.org/POM/4.0.0}version") == VERSION
    assert f"<version>{VERSION}</version>" in (ROOT / "clients/java/README.md").read_text()
