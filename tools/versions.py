"""Writes pyproject.toml's version wherever else it has to stand: part of `make docs`, and a test checks it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

PLACES = {
    "clients/go/README.md": r"userprofile\.example/go(?:@|/@v/)v",
    "clients/java/README.md": r"<artifactId>userprofile-client</artifactId>\s*<version>",
    "clients/java/pom.xml": r"make docs copies it here\. -->\s*<version>",
    "clients/node/README.md": r"userprofile-client-",
    "clients/node/package.json": r'"name": "userprofile-client",\s*"version": "',
    "clients/node/package-lock.json": r'"name": "userprofile-client",\s*"version": "',
    "deploy/compose.yaml": r"image: userprofile:",
    "deploy/kubernetes/kustomization.yaml": r"newTag: ",
    "deploy/kubernetes/try.yaml": r"image: userprofile:",
    "docs/deployment.md": r"\buserprofile:",
    "docs/operations.md": r"\buserprofile-",
}
"""What stands before the version in each file."""


def updated(file: str) -> str:
    """Returns the text of a file with the version as it has to be. A file without any is a ValueError."""
    text, count = re.subn(rf"({PLACES[file]})\d+\.\d+\.\d+", rf"\g<1>{VERSION}", (ROOT / file).read_text())
    if not count:
        raise ValueError(f"{file} has no version after {PLACES[file]}")
    return text


if __name__ == "__main__":
    for file in PLACES:
        text = updated(file)
        if text != (ROOT / file).read_text():  # or make would take everything for changed
            (ROOT / file).write_text(text)
