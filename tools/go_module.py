"""Writes the Go client as a module proxy serves it, with the generated stubs, into a folder: `make go-module`.

The files are those of https://go.dev/ref/mod#goproxy-protocol. The same sources give the same files, as Go's checksums
demand.
"""

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "clients/go"


def write(folder: Path) -> str:
    """Writes the module below `folder`. Returns its path and version, as `go get` takes them."""
    version = "v" + tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    go_mod = (CLIENT / "go.mod").read_bytes()
    module = go_mod.split()[1].decode()
    versions = folder / module / "@v"
    versions.mkdir(parents=True, exist_ok=True)
    (versions / f"{version}.mod").write_bytes(go_mod)
    (versions / f"{version}.info").write_text(json.dumps({"Version": version}))
    (versions / "list").write_text(version + "\n")
    with zipfile.ZipFile(versions / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files().items()):
            entry = zipfile.ZipInfo(f"{module}@{version}/{name}")  # with a constant time
            entry.external_attr = 0o644 << 16  # for those who unpack it
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return f"{module}@{version}"


def files() -> dict[str, Path]:
    """The files of the module, by their names in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CLIENT, check=True, capture_output=True, text=True).stdout
    found = {name: CLIENT / name for name in listed.split("\0") if name and (CLIENT / name).is_file()}
    del found[".gitignore"]  # in others' repositories it would leave out the stubs
    generated = {str(path.relative_to(CLIENT)): path for path in CLIENT.glob("gen/**/*") if path.is_file()}
    if not generated:
        sys.exit("go_module: there are no stubs in clients/go/gen; `make go-module` generates them")
    return found | generated | {"LICENSE": ROOT / "LICENSE"}


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
