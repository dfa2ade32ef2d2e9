"""Runs the containers of Kubernetes' manifests as a kubelet would: files, user, rights, arguments and variables."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.external.podman import IMAGE, LOCKED, Container, Podman

Files = Mapping[str, bytes]
_LIMITS = {"cpu": "cpus", "memory": "memory"}
"""What Podman calls them. Its units are the same powers of two, without the i."""


class Kubelet:
    """Has the config maps and secrets of a namespace, and makes tokens for service accounts."""

    def __init__(
        self,
        podman: Podman,
        folder: Path,
        *,
        config_maps: Mapping[str, Files],
        secrets: Mapping[str, Files],
        token: Callable[[str, str], str],
    ) -> None:
        """`token` makes the one of a service account for an audience."""
        self._podman = podman
        self._folder = folder
        self._config_maps = config_maps
        self._secrets = secrets
        self._token = token

    @contextmanager
    def started(self, pod: Mapping[str, Any], network: Container) -> Iterator[Container]:
        """The one container of a pod, in the network of another container."""
        (container,) = pod["containers"]
        user = pod["securityContext"]
        right = container["securityContext"]
        assert right == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, "what LOCKED is"
        folders = {volume["name"]: self._written(volume, pod) for volume in pod["volumes"]}
        mounts = [f"--volume={folders[m['name']]}:{m['mountPath']}:ro" for m in container["volumeMounts"]]
        assert all(mount["readOnly"] for mount in container["volumeMounts"])
        variables = [f"--env={v['name']}={v['value']}" for v in container.get("env", ())]
        entrypoint, arguments = _command(container)
        identity = (f"--user={user['runAsUser']}:{user['runAsGroup']}", f"--group-add={user['fsGroup']}")
        limits = [f"--{_LIMITS[name]}={limit}" for name, limit in container["resources"]["limits"].items()]
        options = (*LOCKED, *identity, *(limit.removesuffix("i") for limit in limits), *mounts, *variables, *entrypoint)
        with self._podman.started(*options, IMAGE, *arguments, beside=network) as started:
            yield started

    def _written(self, volume: Mapping[str, Any], pod: Mapping[str, Any]) -> Path:
        folder = self._folder / str(pod["serviceAccountName"]) / str(volume["name"])
        folder.mkdir(parents=True)
        kind = next(key for key in volume if key != "name")
        sources = volume[kind]["sources"] if kind == "projected" else [{kind: volume[kind]}]
        for name, content in (file for source in sources for file in self._files(source, pod)):
            (folder / name).write_bytes(content)
            (folder / name).chmod(volume[kind].get("defaultMode", 0o644))
            os.chown(folder / name, 0, pod["securityContext"]["fsGroup"])
        return folder

    def _files(self, source: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        ((kind, what),) = source.items()
        if kind == "serviceAccountToken":
            yield what["path"], self._token(pod["serviceAccountName"], what["audience"]).encode()
            return
        files = self._config_maps[what["name"]] if kind == "configMap" else self._secrets[_name_of_secret(what)]
        chosen = what.get("items") or [{"key": name, "path": name} for name in files]
        for item in chosen:
            yield item["path"], files[item["key"]]


def _name_of_secret(source: Mapping[str, Any]) -> str:
    """A volume and a projection call it differently."""
    return str(source.get("secretName") or source["name"])


def _command(container: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    if "command" not in container:
        return (), container["args"]
    program, *arguments = container["command"]
    return (f"--entrypoint={program}",), [*arguments, *container.get("args", ())]
