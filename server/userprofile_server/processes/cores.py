"""The cores that this process may use: the scheduler's affinity, and the quota of its control groups (containers)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def allowed() -> list[int]:
    """Returns the numbers of the cores in this process's affinity. Empty on systems without affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def usable(*, own_groups: Path = _PROC, groups: Path = _CGROUPS) -> int:
    """Returns how many processes can be busy at once: the allowed cores or the quota, rounded down, at least 1."""
    cores = len(allowed()) or os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(own_groups, groups)])))


def _quotas(own_groups: Path, groups: Path) -> Iterator[float]:
    """Yields the quotas of this process's control group and of its ancestors, in cores.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1
    https://docs.kernel.org/scheduler/sched-bwc.html
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(groups, path):
                with suppress(OSError, ValueError):  # "max": no limit
                    quota, period = map(int, (folder / "cpu.max").read_text().split())
                    yield quota / period
        elif "cpu" in controllers.split(","):
            for folder in _upwards(groups / controllers, path) + _upwards(groups / "cpu", path):
                with suppress(OSError, ValueError):
                    quota = int((folder / "cpu.cfs_quota_us").read_text())
                    if quota > 0:  # -1: no limit
                        yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _upwards(top: Path, path: str) -> list[Path]:
    """Returns the folders of a group and of its ancestors.

    In a container `path` may be the host's path, although only the container's own group is mounted, at the top.
    """
    relative = PurePosixPath(path.lstrip("/"))
    return [top / part for part in (relative, *relative.parents)]
