"""What users install, built and installed as they would: `make test-package`. Needs the package index, not more."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROTOS = sorted(ROOT.glob("protos/userprofile/v1/*.proto"))
STUBS = [
    *(f"{proto.stem}_pb2{suffix}" for proto in PROTOS for suffix in (".py", ".pyi")),
    "user_profile_service_pb2_grpc.py",
    "user_profile_service_pb2_grpc.pyi",
]


def pip(python: Path, *args: object) -> str:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without anything that was generated in it."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", folder, clone)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_has_all_packages_their_stubs_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    contract = [*STUBS, *(proto.name for proto in PROTOS), "service_config.json"]
    for name in [*(f"v1/{name}" for name in contract), "py.typed", "cli.py"]:
        assert f"userprofile/{name}" in names
    assert "userprofile_server/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "userprofile", "userprofile_command", "userprofile_server",
    }  # fmt: skip


@pytest.mark.timeout(300)
def test_the_sdist_builds_by_itself(clone: Path, tmp_path: Path) -> None:
    # hatchling is called in a build environment of pip's, as PEP 517 specifies.
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=True)
    pip(python, "install", "--quiet", "build")
    subprocess.run([python, "-m", "build", "--sdist", "--outdir", tmp_path, clone], check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for stub in STUBS:
        assert f"client/userprofile/v1/{stub}" in names
    for proto in PROTOS:
        assert str(proto.relative_to(ROOT)) in names
    pip(python, "install", "--quiet", "-c", ROOT / "constraints.txt", sdist)


@pytest.mark.timeout(300)
def test_the_client_alone_is_light_and_works(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=True)
    pip(python, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    installed = {line.partition("==")[0] for line in pip(python, "freeze").splitlines()}
    assert {name.partition(" ")[0] for name in installed} == {
        "click",
        "googleapis-common-protos",
        "grpcio",
        "grpcio-health-checking",
        "grpcio-status",
        "protobuf",
        "typing_extensions",
        "userprofile",
    }
    bin_ = python.parent
    helped = subprocess.run([bin_ / "userprofile", "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    server = subprocess.run([bin_ / "userprofile-server", "--help"], capture_output=True, text=True, check=False)
    assert server.returncode == 1
    assert "pip install 'userprofile[server]'" in server.stderr


@pytest.mark.timeout(300)
def test_the_server_serves_sqlite_without_the_couchbase_sdk(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=True)
    pip(python, "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[server]")
    assert "couchbase" not in {line.partition("==")[0] for line in pip(python, "freeze").splitlines()}
    program = python.parent / "userprofile-server"

    def run(*args: str, users: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *args], input=users, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run("import", "-", users='{"username": "johndoe"}').returncode == 0
    checked = run("check")
    assert checked.returncode == 0, checked.stderr
    refused = run("check", "--store", "couchbase://localhost/users")
    assert refused.returncode == 3
    assert "pip install 'userprofile[server,couchbase]'" in refused.stderr
    pip(python, "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[server,couchbase]")
    assert "pip install" not in run("check", "--store", "couchbase://127.0.0.1:1/users").stderr
