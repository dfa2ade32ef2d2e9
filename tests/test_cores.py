"""How many cores a process may use: affinity and the quotas of its control groups, in trees as Linux lays them out."""

import os
from pathlib import Path

import pytest

from userprofile_server.processes import cores


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def usable(folder: Path, own_groups: str, files: dict[str, str]) -> int:
    for name, content in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(content + "\n")
    (folder / "cgroup").write_text(own_groups)
    return cores.usable(own_groups=folder / "cgroup", groups=folder / "groups")


QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
BOTH = "cpu,cpuacct"
V1 = "12:cpuset:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("own_groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "400000 100000"}, 4),  # a container with a namespace of its own
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/\n", {"cpu.max": "299000 100000"}, 2),  # rounded down
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),  # but at least 1
        ("0::/\n", {"cpu.max": "9900000 100000"}, 16),  # more than there are
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),  # of a group around it
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/of/the/host\n", {"cpu.max": "250000 50000"}, 5),  # its own group is at the top
        (V1, {f"{BOTH}/docker/abc/{QUOTA}": "300000", f"{BOTH}/docker/abc/{PERIOD}": "100000"}, 3),
        (V1, {f"{BOTH}/{QUOTA}": "150000", f"{BOTH}/{PERIOD}": "50000"}, 3),
        (V1, {f"cpu/docker/abc/{QUOTA}": "200000", f"cpu/docker/abc/{PERIOD}": "100000"}, 2),
        (V1, {f"{BOTH}/{QUOTA}": "-1", f"{BOTH}/{PERIOD}": "100000"}, 16),
        ("0::/\n", {}, 16),  # the root of a machine has no quota
        ("0::/\n", {"cpu.max": "nonsense"}, 16),
        ("", {}, 16),
    ],
)  # fmt: skip
def test_a_quota_counts_where_it_is_less_than_the_cores(
    tmp_path: Path, own_groups: str, files: dict[str, str], expected: int
) -> None:
    assert usable(tmp_path, own_groups, files) == expected


def test_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5})
    assert usable(tmp_path, "0::/\n", {"cpu.max": "400000 100000"}) == 2
    assert cores.allowed() == [3, 5]


def test_without_control_groups_the_cores_count(tmp_path: Path) -> None:
    assert cores.usable(own_groups=tmp_path / "none", groups=tmp_path) == 16
