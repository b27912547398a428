"""How many CPUs this process may keep busy: by its affinity, and by the quotas of its cgroups.

Sources: cgroups(7), cgroup_namespaces(7), and proc(5) for cgroup and mountinfo; the kernel's
admin-guide/cgroup-v2 for cpu.max and scheduler/sched-bwc for cpu.cfs_quota_us. A cpuset needs no
reading: the affinity is within it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_QUOTA_FILES = {
    "cgroup": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cgroup2": ("cpu.max",),
}
"""Where a cgroup has its quota and the period it is for, by the type of its file system."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def available_cpus(proc: Path = Path("/proc"), *, affinity: int = 0) -> int:
    """Say how many CPUs this process may keep busy, at least 1.

    These are as many as its *affinity* allows (0 = ask the kernel), and no more than the quota of
    its cgroup, and of every cgroup above it that can be seen, rounded down. What cannot be read
    limits nothing.
    """
    return max(1, min([affinity or len(os.sched_getaffinity(0)), *_quotas(proc / "self")]))


def _quotas(process: Path) -> Iterator[int]:
    """Give the quotas that hold for the process, in whole CPUs."""
    paths = _cgroups(_text(process / "cgroup"))
    for kind, root, mount_point in _mounts(_text(process / "mountinfo")):
        names = _names_below(root, paths[kind]) if kind in paths else None
        if names is not None:
            for depth in range(len(names) + 1):
                yield from _quota(mount_point.joinpath(*names[:depth]), kind)


def _cgroups(text: str) -> dict[str, PurePosixPath]:
    """Read which cgroups could have a quota for the process: one of v1, one of v2, or both."""
    found = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            found["cgroup"] = PurePosixPath(path)
        elif number == "0":
            found["cgroup2"] = PurePosixPath(path)
    return found


def _mounts(text: str) -> Iterator[tuple[str, PurePosixPath, Path]]:
    """Read where cgroups are mounted: the type, the cgroup that is the mount's root, the place."""
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        match before.split(" "), after.split(" "):
            case [_, _, _, root, place, *_], [kind, _, options] if kind == "cgroup2" or (
                kind == "cgroup" and "cpu" in options.split(",")
            ):
                yield kind, PurePosixPath(_unescaped(root)), Path(_unescaped(place))


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)


def _names_below(root: PurePosixPath, path: PurePosixPath) -> tuple[str, ...] | None:
    """Say by which names the cgroup *path* is reached from *root*; None if it is elsewhere.

    Both are seen from the root of our cgroup namespace, and ``..`` leads out of it. Where one of
    them is out there, the names between them cannot be known: then the root has to do.
    """
    depth = len(root.parts)
    if path.parts[:depth] == root.parts:
        names = path.parts[depth:]
        return () if ".." in names else names
    return () if set(root.parts[1:]) == {".."} else None


def _quota(directory: Path, kind: str) -> Iterator[int]:
    """Give the quota of the cgroup at *directory* in whole CPUs, if it has one."""
    words = " ".join(_text(directory / name) for name in _QUOTA_FILES[kind]).split()
    try:
        quota, period = map(int, words)
    except ValueError:  # v2 says "max" where there is none
        return
    if quota > 0 and period > 0:  # and v1 says -1
        yield quota // period


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes())
    except (OSError, ValueError):
        return ""
