"""The Python package as others get it: the wheel and the sdist of the release, in empty environments."""

import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.external.release import RELEASE, ROOT, VERSION, blocks, command, demo

WHEEL = RELEASE / f"userprofile-{VERSION}-py3-none-any.whl"
SDIST = RELEASE / f"userprofile-{VERSION}.tar.gz"
PROTOS = sorted(ROOT.glob("protos/userprofile/v1/*.proto"))
STUBS = [
    *(f"{proto.stem}_pb2{suffix}" for proto in PROTOS for suffix in (".py", ".pyi")),
    "user_profile_service_pb2_grpc.py",
    "user_profile_service_pb2_grpc.pyi",
]


class Environment:
    """An empty virtual environment."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "env", with_pip=True)
        self.bin = folder / "env/bin"

    def install(self, package: str | Path) -> None:
        command(f"{self.bin}/python -m pip install --quiet -c {ROOT}/constraints.txt {package}", self.bin)

    def packages(self) -> set[str]:
        frozen = command(f"{self.bin}/python -m pip freeze", self.bin).splitlines()
        return {line.partition("==")[0].partition(" ")[0] for line in frozen}


def test_the_wheel_has_all_packages_their_stubs_and_types() -> None:
    names = zipfile.ZipFile(WHEEL).namelist()
    assert len(names) == len(set(names))
    contract = [*STUBS, *(proto.name for proto in PROTOS), "service_config.json"]
    for name in [*(f"v1/{name}" for name in contract), "py.typed", "cli.py"]:
        assert f"userprofile/{name}" in names
    assert "userprofile_server/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "userprofile", "userprofile_command", "userprofile_server",
    }  # fmt: skip


def test_the_sdist_has_the_protos_and_the_stubs() -> None:
    with tarfile.open(SDIST) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for stub in STUBS:
        assert f"client/userprofile/v1/{stub}" in names
    for proto in PROTOS:
        assert str(proto.relative_to(ROOT)) in names


@pytest.mark.timeout(300)
def test_the_client_alone_is_light_and_works_as_the_readme_says(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install(WHEEL)
    assert environment.packages() == {
        "click",
        "googleapis-common-protos",
        "grpcio",
        "grpcio-health-checking",
        "grpcio-status",
        "protobuf",
        "typing_extensions",
        "userprofile",
    }
    with demo(tmp_path) as target:
        (tmp_path / "hello.py").write_text(blocks("README.md", "python")[0].replace("localhost:50051", target))
        assert command(f"{environment.bin}/python hello.py", tmp_path) == blocks("README.md", "text")[0]
    command(f"{environment.bin}/userprofile --help", tmp_path)
    server = subprocess.run([environment.bin / "userprofile-server"], capture_output=True, text=True, check=False)
    assert server.returncode == 1
    assert "pip install 'userprofile[server]'" in server.stderr


@pytest.mark.timeout(300)
def test_the_server_serves_sqlite_without_the_couchbase_sdk(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install(f"{SDIST}[server]")
    assert "couchbase" not in environment.packages()
    program = environment.bin / "userprofile-server"

    def run(*args: str, users: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *args], input=users, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run("import", "-", users='{"username": "johndoe"}').returncode == 0
    checked = run("check")
    assert checked.returncode == 0, checked.stderr
    refused = run("check", "--store", "couchbase://localhost/users")
    assert refused.returncode == 3
    assert "pip install 'userprofile[server,couchbase]'" in refused.stderr
    environment.install(f"{WHEEL}[server,couchbase]")
    assert "pip install" not in run("check", "--store", "couchbase://127.0.0.1:1/users").stderr
