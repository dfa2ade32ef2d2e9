"""What is in deploy/, built, validated and run: `make test-deploy`. Needs root, and the tools that it installs."""

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.canary import CANARY
from tests.external.kubelet import Kubelet
from tests.external.podman import IMAGE, LOCKED, ROOT, Container, NoContainersError, Podman, podman_with_image
from tests.issuer import SigningKey, key_set
from tests.support import document, eventually
from userprofile_server.settings import ServerSettings
from userprofile_server.telemetry.metrics import METRICS

pytestmark = pytest.mark.timeout(600)

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
TOOLS = ROOT / ".tools" / "bin"
VALIDATOR = ROOT / "build" / "kubernetes-validate" / "bin"
VERSIONS = ("1.31", "1.34", "1.37")
"""Of Kubernetes: from the first that knows all fields to the newest that kubernetes-validate does."""

SUPERVISOR_PATIENCE = 5  # seconds beyond the drain, after which a process is killed: docs/processes.md
MOST_EXPOSED = 1.2  # of 10, as systemd-analyze rates what a service could do
DATA = "/var/lib/userprofile"
USERS = (ROOT / "demo" / "users.jsonl").read_bytes()
JOHN = document("johndoe", email="johndoe@example.com", full_name="John Doe", hashed_password=CANARY) + b"\n"


def run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with ExitStack() as stack:
        try:
            podman = stack.enter_context(podman_with_image())
        except NoContainersError as error:
            if "USERPROFILE_SKIP_NOTHING" in os.environ:
                raise
            pytest.skip(f"NOT RUN, because this machine can't run containers: {error}")
        yield podman


@pytest.fixture(scope="module")
def data(podman: Podman) -> str:
    """A new volume, into which the image has imported the demo's users."""
    imported = podman.run(*LOCKED, f"--volume=users:{DATA}", IMAGE, "import", "-", stdin=USERS)
    assert imported.returncode == 0, imported.stderr
    return "users"


# The image


def test_the_image_says_how_it_is_run(podman: Podman) -> None:
    (image,) = json.loads(podman.output("inspect", IMAGE))
    config = image["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["userprofile-server"]
    assert config["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"][:3] == ["CMD", "userprofile", "health"]


def test_the_image_has_what_was_tested_and_no_tools(podman: Podman) -> None:
    listing = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    installed = podman.run("--entrypoint=python", IMAGE, "-c", listing).stdout.lower().replace("_", "-").split()
    tested = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").split()
    assert {name for name in installed if not name.startswith("userprofile==")} <= set(tested)
    assert any(name.startswith("couchbase==") for name in installed)
    tools = podman.run(
        "--entrypoint=sh", IMAGE, "-c", "for tool in cc gcc g++ ld make pip git; do command -v $tool; done"
    )
    assert tools.stdout == ""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_container_serves_and_drains(podman: Podman, data: str, processes: str) -> None:
    """The drain's delay is only ended by the second signal, so that there is time to look."""
    settings = (f"--env=USERPROFILE_SERVER_PROCESSES={processes}", "--env=USERPROFILE_SERVER_DRAIN_DELAY=600")
    with podman.started(*LOCKED, *settings, f"--volume={data}:{DATA}:ro", IMAGE) as server:
        server.wait_until_it_logs("listening on ")
        eventually(server.healthcheck, server.log)
        found = server.execute("userprofile", "get", "johndoe")
        assert (found.returncode, found.stdout.splitlines()[0].split()) == (0, ["username", "johndoe"]), found.stderr
        assert server.execute("userprofile", "get", "nobody").returncode == 3
        for place in ("/x", "/tmp/x", f"{DATA}/x", "/opt/userprofile/x"):
            assert "Read-only file system" in server.execute("touch", place).stderr
        status = server.execute("cat", "/proc/1/status").stdout
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status

        server.signal("TERM")
        eventually(lambda: server.execute("userprofile", "health").returncode == 4, server.log)
        assert not server.healthcheck()
        assert server.execute("userprofile", "get", "johndoe").returncode == 0
        server.signal("TERM")
        assert server.exit_status() == 0
        assert "stopped" in server.log()


def test_a_container_stops_within_the_patience_that_orchestrators_are_told(podman: Podman, data: str) -> None:
    with podman.started(*LOCKED, f"--volume={data}:{DATA}:ro", IMAGE) as server:
        server.wait_until_it_logs("listening on ")
        server.stop(patience_needed(ServerSettings()))
        assert server.exit_status() == 0


def test_a_container_that_is_still_starting_stops_too(podman: Podman, tmp_path: Path) -> None:
    pipe = tmp_path / "settings"
    os.mkfifo(pipe, 0o666)
    pipe.chmod(0o666)
    with podman.started(*LOCKED, f"--volume={pipe}:/settings", IMAGE, "serve", "--config", "/settings") as server:
        eventually(lambda: blocked_in_open(server), "it waits for its settings")
        server.signal("TERM")
        assert server.exit_status() == 128 + 15


def blocked_in_open(container: Container) -> bool:
    """Whether a first process has got as far as to read its settings, from a pipe that has no writer."""
    handlers = container.execute("sed", "-n", "s/^SigCgt:.//p", "/proc/1/status").stdout
    return bool(int(handlers or "0", 16) & 1 << 14)  # SIGTERM is number 15


def patience_needed(settings: ServerSettings) -> int:
    """Seconds that a server may take to stop."""
    return int(settings.drain_delay + settings.drain_grace) + SUPERVISOR_PATIENCE


# Kubernetes


@pytest.fixture(scope="module")
def manifests() -> str:
    return run(TOOLS / "kustomize", "build", KUBERNETES)


@pytest.fixture(scope="module")
def objects(manifests: str) -> dict[str, Any]:
    """The objects by their kinds, of which there is one each."""
    found = [*parsed(manifests), *parsed((KUBERNETES / "try.yaml").read_text())]
    kinds = {each["kind"]: each for each in found if each["metadata"]["name"] != "try" or each["kind"] == "Job"}
    assert len(kinds) == len(found) - 1, "one ServiceAccount is the job's"
    return kinds


def parsed(text: str) -> list[Any]:
    convert = "import json, sys, yaml; json.dump([*yaml.safe_load_all(sys.stdin)], sys.stdout)"
    done = subprocess.run([VALIDATOR / "python", "-c", convert], input=text, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_match_the_schemas_of_kubernetes(version: str, manifests: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(manifests)
    said = run(
        VALIDATOR / "kubernetes-validate", "--strict", "-k", version, tmp_path / "all.yaml", KUBERNETES / "try.yaml"
    )
    assert said.count(" passed for resource ") == len(said.splitlines())  # an unknown kind would be a mere warning


def test_the_schemas_are_strict(tmp_path: Path) -> None:
    wrong = (KUBERNETES / "deployment.yaml").read_text().replace("readinessProbe", "readynessProbe")
    (tmp_path / "wrong.yaml").write_text(wrong)
    command = (VALIDATOR / "kubernetes-validate", "--strict", "-k", VERSIONS[-1], tmp_path / "wrong.yaml")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_manifests_agree_with_each_other_and_with_the_code(objects: Mapping[str, Any]) -> None:
    deployment = objects["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    job = objects["Job"]["spec"]["template"]
    callers, *_ = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert callers["podSelector"]["matchLabels"].items() <= job["metadata"]["labels"].items()

    settings = tomllib.loads(objects["ConfigMap"]["data"]["settings.toml"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {name: str(port) for name, port in ports.items()} == {
        "grpc": settings["server"]["listen"].rpartition(":")[2],
        "health": settings["server"]["health_listen"].rpartition(":")[2],
        "metrics": settings["server"]["metrics_listen"].rpartition(":")[2],
    }
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["grpc"]["port"] == ports["health"]
    delay, grace = settings["server"]["drain_delay"], settings["server"]["drain_grace"]
    assert pod["terminationGracePeriodSeconds"] >= delay + grace + SUPERVISOR_PATIENCE + 5

    scaled = [metric["pods"]["metric"]["name"] for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"][1:]]
    (adapter,) = parsed((KUBERNETES / "prometheus-adapter.yaml").read_text())
    assert scaled == [rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]["custom"]]
    assert set(scaled) <= {metric.name for metric in METRICS}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_pods_have_no_more_rights_than_the_restricted_standard_allows(
    kind: str, objects: Mapping[str, Any]
) -> None:
    """What its namespace enforces: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pod = objects[kind]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"memory"} <= container["resources"]["limits"].keys()
    kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
    assert kinds <= {"configMap", "emptyDir", "projected", "secret"}


def test_the_deployment_serves_the_job_that_tries_it(
    podman: Podman, objects: Mapping[str, Any], tmp_path: Path
) -> None:
    """Both run as the manifests have it: TLS, password and token in files, keys fetched from the API server."""
    settings = tomllib.loads(objects["ConfigMap"]["data"]["settings.toml"])
    names = ("couchbase.example", "kubernetes.default.svc", "userprofile.userprofile.svc.cluster.local")
    authority = Authority()
    issued = {name: authority.issue(name) for name in names}
    for name in names:
        (tmp_path / name).write_bytes(issued[name].key + issued[name].certificate)
    key = SigningKey("RS256")
    (tmp_path / "keys.json").write_bytes(key_set(key.public()))
    (tmp_path / "users.jsonl").write_bytes(JOHN)

    def token(account: str, audience: str) -> str:
        return key.token(
            iss=settings["jwt"]["issuer"], sub=f"system:serviceaccount:userprofile:{account}", aud=[audience]
        )

    secrets = {
        "userprofile-tls": {"tls.crt": issued[names[2]].certificate, "tls.key": issued[names[2]].key},
        "userprofile-couchbase": {"password": b"secret\n"},
    }
    for secret in secrets.values():
        secret["ca.crt"] = authority.pem
    config = objects["ConfigMap"]
    kubelet = Kubelet(
        podman,
        tmp_path,
        config_maps={
            config["metadata"]["name"]: {name: text.encode() for name, text in config["data"].items()},
            "kube-root-ca.crt": {"ca.crt": authority.pem},
        },
        secrets=secrets,
        token=token,
    )
    with sandbox(podman, *names) as network, ExitStack() as running:
        beside = network.process_beside
        node = ("--port=11207", "--bucket=userprofile", "--username=userprofile", "--password=secret")
        certificate, users = f"--certificate={tmp_path / names[0]}", f"--load={tmp_path / 'users.jsonl'}"
        running.enter_context(beside("-m", "tests.couchbase_node", *node, certificate, users))
        api_server = ("-m", "tests.external.serve_file", tmp_path / "keys.json", 443, tmp_path / names[1])
        running.enter_context(beside(*api_server))

        pod = objects["Deployment"]["spec"]["template"]["spec"]
        server = running.enter_context(kubelet.started(pod, network))
        server.wait_until_it_logs("ready: all ")
        probe = ("userprofile", "health", "--target", "127.0.0.1:50053")
        eventually(lambda: server.execute(*probe).returncode == 0, server.log)
        metrics = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
        assert "userprofile_queue_age_seconds{" in server.execute("python", "-c", metrics).stdout

        job = running.enter_context(kubelet.started(objects["Job"]["spec"]["template"]["spec"], network))
        assert job.exit_status() == 0, job.log() + server.log()
        assert "John Doe" in job.log()
        assert "@" not in job.log()  # the policy doesn't show the address

        server.stop(pod["terminationGracePeriodSeconds"])
        assert server.exit_status() == 0


@contextmanager
def sandbox(podman: Podman, *names: str) -> Iterator[Container]:
    """A network for several containers, in which these names are its own loopback address."""
    hosts = [f"--add-host={name}:127.0.0.1" for name in names]
    with podman.started(*hosts, "--entrypoint=sleep", IMAGE, "infinity") as container:
        yield container


# systemd


def test_systemd_runs_the_unit(podman: Podman, tmp_path: Path) -> None:
    """In a container with systemd as its first process. What the unit takes away is taken away there too."""
    (tmp_path / "Containerfile").write_text(f"""
FROM {IMAGE}
USER root
RUN apt-get update && apt-get install -y --no-install-recommends procps systemd
COPY systemd/userprofile.service /etc/systemd/system/
COPY systemd/userprofile.sysusers.conf /etc/sysusers.d/userprofile.conf
RUN systemd-sysusers && rmdir {DATA}
RUN systemd-analyze verify /etc/systemd/system/userprofile.service
RUN systemd-analyze security --offline=true --threshold={MOST_EXPOSED * 10:.0f} /etc/systemd/system/userprofile.service
STOPSIGNAL SIGRTMIN+3
HEALTHCHECK NONE
ENTRYPOINT ["/lib/systemd/systemd"]
CMD []
""")
    podman.build(tmp_path / "Containerfile", DEPLOY, "localhost/systemd")
    (tmp_path / "users.jsonl").write_bytes(JOHN)
    kernel = "--env=SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        kernel = "--env=SYSTEMD_PROC_CMDLINE="
    systemd = ("--privileged", "--systemd=always", "--env=container=podman", kernel, "localhost/systemd")
    node = ("-m", "tests.couchbase_node", "--port=11210", "--bucket=users", f"--load={tmp_path / 'users.jsonl'}")
    with (
        podman.started(*systemd) as host,
        host.process_beside(*node),
    ):

        def succeeds(*command: str, stdin: bytes | None = None) -> str:
            done = host.execute(*command, stdin=stdin)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        def said() -> str:
            return host.execute("journalctl", "--unit=userprofile", "--no-pager").stdout

        def shown(name: str) -> str:
            return succeeds("systemctl", "show", "--property", name, "--value", "userprofile").strip()

        def served() -> bool:
            return host.execute("userprofile", "get", "johndoe").returncode == 0

        eventually(lambda: host.execute("systemctl", "list-units").returncode == 0, host.log)
        succeeds("systemctl", "start", "userprofile")
        eventually(lambda: "userprofile-server import creates it" in said(), said)
        as_it = ("setpriv", "--reuid=userprofile", "--regid=userprofile", "--clear-groups")
        succeeds(*as_it, "userprofile-server", "import", "-", stdin=USERS)
        eventually(served, said)  # it is started again until it has its file
        status = succeeds("cat", f"/proc/{shown('MainPID')}/status")
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status

        # Couchbase's SDK and several processes, with the password in a file of the user's group.
        settings = """
            [store]
            url = "couchbase://127.0.0.1:11210/users"
            [couchbase]
            username = "username"
            password_file = "/etc/userprofile/password"
            [server]
            processes = 2
            pinning = "auto"
            metrics_listen = "127.0.0.1:9464"
        """
        succeeds("tee", "/etc/userprofile/settings.toml", stdin=settings.encode())
        install = ("install", "--mode=0640", "--group=userprofile", "/dev/stdin", "/etc/userprofile/password")
        succeeds(*install, stdin=b"password")
        succeeds("systemctl", "restart", "userprofile")
        eventually(lambda: "ready: all 2 processes" in said(), said)
        assert served()
        supervisor = shown("MainPID")
        succeeds("systemctl", "reload", "userprofile")
        eventually(lambda: "SIGHUP: all 2 processes have the new settings" in said(), said)
        assert served()
        assert shown("MainPID") == supervisor
        succeeds("systemctl", "stop", "userprofile")
        assert (shown("Result"), shown("ExecMainStatus")) == ("success", "0")


def test_systemd_waits_for_longer_than_a_drain_takes() -> None:
    unit = (DEPLOY / "systemd" / "userprofile.service").read_text()
    (patience,) = [int(line.partition("=")[2]) for line in unit.splitlines() if line.startswith("TimeoutStopSec=")]
    assert patience >= patience_needed(ServerSettings()) + 5


# Compose


def composed(file: str) -> Any:
    path = ROOT / file
    return json.loads(run(TOOLS / "compose-spec", "-format", "json", path.name, cwd=path.parent))


@pytest.mark.parametrize("file", ["deploy/compose.yaml", "docs/couchbase.compose.yaml"])
def test_the_compose_files_are_valid(file: str) -> None:
    assert composed(file)["services"]["couchbase"]["image"].startswith("couchbase:")


def test_what_compose_starts_serves(podman: Podman, tmp_path: Path) -> None:
    """All services but Couchbase's own, one after the other, with the test node in its place."""
    services = composed("deploy/compose.yaml")["services"]
    (tmp_path / "password").write_text("secret")
    node = ("-m", "tests.couchbase_node", "--port=11210", "--bucket=userprofile")
    with (
        sandbox(podman, "couchbase") as network,
        network.process_beside(*node, "--username=userprofile", "--password=secret"),
        service_started(podman, services["users"], network, tmp_path) as users,
    ):
        assert users.exit_status() == 0, users.log()
        with service_started(podman, services["userprofile"], network, tmp_path) as server:
            server.wait_until_it_logs("listening on ")
            eventually(server.healthcheck, server.log)
            assert server.execute("userprofile", "get", "johndoe").returncode == 0
            server.stop(int(services["userprofile"]["stop_grace_period"].removesuffix("s")))
            assert server.exit_status() == 0


@contextmanager
def service_started(podman: Podman, service: Any, network: Container, folder: Path) -> Iterator[Container]:
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    variables = [f"--env={name}={value}" for name, value in service["environment"].items()]
    volumes = [f"--volume={volume['source']}:{volume['target']}:ro" for volume in service.get("volumes", ())]
    (secret,) = service["secrets"]
    volumes.append(f"--volume={folder / 'password'}:{secret['target']}:ro")
    arguments = service.get("command") or ()
    with podman.started(*LOCKED, *variables, *volumes, IMAGE, *arguments, beside=network) as started:
        yield started
