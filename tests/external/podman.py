"""Real containers, on storage of their own, that see no network but their own loopback interface. Needs root."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.canary import look
from tests.fork_server import BIN
from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent
BASE = "debian:trixie-slim"
IMAGE = "localhost/userprofile"
LOCKED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
"""As the manifests and the compose file have it: nothing is writable, not even /tmp."""

_LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")  # root may be unable to raise them to Podman's own


class NoContainersError(Exception):
    """Raised where containers can't be run, for example inside of one. The text says why."""


class Podman:
    """The command, with images and containers in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        places = (f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp")
        self._command = ("podman", *places, "--cgroup-manager=cgroupfs", "--runtime=runc")
        self._pip = _pip_settings(folder)

    def __call__(self, *args: object, stdin: bytes | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs the command to its end, and returns its output and status."""
        done = subprocess.run([*self._command, *map(str, args)], input=stdin, capture_output=True, check=False)
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        look(f"output of podman {args[0]}", stdout + stderr)
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    def output(self, *args: object) -> str:
        """Returns what the command prints, without the line's end. It has to succeed."""
        done = self(*args)
        assert done.returncode == 0, f"podman {' '.join(map(str, args))}:\n{done.stdout[-5000:]}{done.stderr[-5000:]}"
        return done.stdout.strip()

    def build(self, file: Path, context: Path, tag: str, *args: str) -> str:
        """Builds an image, with this machine's network and certificates, and returns what was printed."""
        # The format of OCI has no HEALTHCHECK.
        how = ("--format=docker", "--isolation=chroot", "--network=host", "--pull=never", *self._pip)
        return self.output("build", *how, *args, "--tag", tag, "--file", file, context)

    def run(self, *args: object, stdin: bytes | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a container to its end."""
        return self("run", "--rm", "--interactive", "--network=none", *_LIMITS, *args, stdin=stdin)

    @contextmanager
    def started(self, *args: object, beside: "Container | None" = None) -> Iterator["Container"]:
        """A container that runs in the background, in a network of its own or in that of another one."""
        network = ["--network=none"]
        if beside:
            names = self.output("inspect", "--format={{.HostsPath}}", beside.name)
            network = [f"--network=container:{beside.name}", f"--volume={names}:/etc/hosts:ro"]
        container = Container(self, self.output("run", "--detach", *network, *_LIMITS, *args))
        try:
            yield container
        finally:
            look("the log of a container", container.log())
            self.output("rm", "--force", "--time=0", container.name)


class Container:
    """A container that was started."""

    def __init__(self, podman: Podman, name: str) -> None:
        self._podman = podman
        self.name = name

    def execute(self, *args: object, stdin: bytes | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a command in it."""
        return self._podman("exec", "--interactive", self.name, *args, stdin=stdin)

    def signal(self, name: str) -> None:
        """Sends a signal to its first process."""
        self._podman.output("kill", "--signal", name, self.name)

    def stop(self, seconds: int) -> None:
        """Stops it as orchestrators do: with its stop signal, and after these seconds with SIGKILL."""
        self._podman.output("stop", "--time", seconds, self.name)

    def healthcheck(self) -> bool:
        """Whether the check that its image has succeeds."""
        return self._podman("healthcheck", "run", self.name).returncode == 0

    def log(self) -> str:
        done = self._podman("logs", self.name)
        return done.stdout + done.stderr

    def state(self) -> Any:
        return json.loads(self._podman.output("inspect", self.name))[0]["State"]

    def wait_until_it_logs(self, text: str) -> None:
        eventually(lambda: text in self.log() or not self.state()["Running"], lambda: f"{text}: {self.log()}", 60)
        assert text in self.log(), self.log()

    def exit_status(self) -> int:
        """Waits for its end."""
        return int(self._podman.output("wait", self.name))

    @contextmanager
    def process_beside(self, *command: object) -> Iterator["subprocess.Popen[bytes]"]:
        """A process of this machine in the container's network, once it has printed a line."""
        inside = ("nsenter", f"--net=/proc/{self.state()['Pid']}/ns/net", sys.executable, *map(str, command))
        process = subprocess.Popen(inside, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()


@contextmanager
def podman_with_image() -> Iterator[Podman]:
    """Podman with an image of ours, built by deploy/Containerfile on a base of Debian's packages.

    Raises:
        NoContainersError: this machine can't run containers.
    """
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # short: the paths of sockets are in it
    podman = Podman(folder)
    try:
        base = folder / "base.tar"
        unneeded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
        unneeded.append('--aptopt=Acquire::Languages "none"')  # the real base leaves these out too
        release = BASE.partition(":")[2].removesuffix("-slim")
        made = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *unneeded, release, base], check=False)
        if made.returncode != 0:
            raise NoContainersError("mmdebstrap could not make a base (its output is above)")
        podman.output("import", base, f"localhost/{BASE}")
        base.unlink()
        tried = podman.run(f"localhost/{BASE}", "true")
        if tried.returncode != 0:
            raise NoContainersError(tried.stderr.strip())
        podman.build(ROOT / "deploy" / "Containerfile", ROOT, IMAGE, f"--build-arg=BASE=localhost/{BASE}")
        yield podman
    finally:
        podman("rm", "--all", "--force", "--time=0")  # what a test that failed has left
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(folder)


def _pip_settings(folder: Path) -> list[str]:
    """Options of a build for pip to trust and find what this machine does."""
    index = subprocess.run(
        [BIN / "python", "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    ).stdout
    authorities = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    lines = ["[global]"]
    mounts = []
    if authorities:
        lines.append("cert = /etc/machine.pem")
        mounts.append(f"--volume={Path(authorities).resolve()}:/etc/machine.pem:ro")
    if index:
        lines.append(f"index-url = {index}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return [*mounts, f"--volume={folder}/pip.conf:/etc/pip.conf:ro"]
