import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cpus import available_cpus
from tests.bundle import ROOT
from tests.unit.factories import with_files

MACHINE = 64
"""The CPUs that the affinity allows in the trees below."""


class Tree:
    """A /proc with one process, and the cgroups that are mounted there."""

    def __init__(self, base: Path) -> None:
        self.proc, self.base = base / "proc", base
        (self.proc / "self").mkdir(parents=True)
        self.is_in("")
        self.mountinfo("21 1 0:20 / /proc rw,relatime - proc proc rw\n")

    def is_in(self, *lines: str) -> None:
        """Write the process's lines of /proc/self/cgroup."""
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mountinfo(self, text: str) -> None:
        with (self.proc / "self" / "mountinfo").open("a") as file:
            file.write(text)

    def mount(self, name: str, *, root: str = "/", v1: str = "") -> Path:
        """Mount the cgroup *root* at *name*: of v2, or of v1 with the controllers *v1*."""
        place = self.base / name
        place.mkdir(parents=True)
        kind = f"cgroup cgroup rw,{v1}" if v1 else "cgroup2 cgroup2 rw,nsdelegate"
        escaped = str(place).replace(" ", "\\040")
        self.mountinfo(f"31 23 0:28 {root} {escaped} rw,relatime shared:4 - {kind}\n")
        return place

    def cpus(self) -> int:
        return available_cpus(self.proc, affinity=MACHINE)


def limit(directory: Path, quota: str, period: str = "100000", *, v1: bool = False) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if v1:
        (directory / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (directory / "cpu.cfs_period_us").write_text(f"{period}\n")
    else:
        (directory / "cpu.max").write_text(f"{quota} {period}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("200000", "100000", 2),
        ("250000", "100000", 2),
        ("299999", "100000", 2),
        ("50000", "100000", 1),
        ("1000", "1000000", 1),
        ("30000", "10000", 3),
        ("6500000", "100000", MACHINE),
    ],
)
def test_a_quota_is_that_many_whole_cpus_and_at_least_one(
    tree: Tree, quota: str, period: str, cpus: int, v1: bool
) -> None:
    tree.is_in("1:cpu:/pod" if v1 else "0::/pod")
    limit(tree.mount("cgroup", v1="cpu" if v1 else "") / "pod", quota, period, v1=v1)

    assert tree.cpus() == cpus


@pytest.mark.parametrize(("parent", "own"), [("300000", "max"), ("300000", "500000")])
def test_a_tighter_parent_counts(tree: Tree, parent: str, own: str) -> None:
    mounted = tree.mount("cgroup")
    tree.is_in("0::/kubepods/pod/container")
    limit(mounted / "kubepods", "900000")
    limit(mounted / "kubepods" / "pod", parent)
    limit(mounted / "kubepods" / "pod" / "container", own)

    assert tree.cpus() == 3


def test_a_cgroup_beside_ours_does_not_count(tree: Tree) -> None:
    mounted = tree.mount("cgroup")
    tree.is_in("0::/pod")
    limit(mounted / "pod", "300000")
    limit(mounted / "pod" / "child", "100000")
    limit(mounted / "other", "100000")

    assert tree.cpus() == 3


def test_the_cpu_controller_is_found_where_it_shares_a_hierarchy(tree: Tree) -> None:
    mounts = [tree.mount(names, v1=names) for names in ("cpuset", "cpu,cpuacct", "cpuset,memory")]
    tree.is_in(
        "12:cpuset:/set", "5:cpu,cpuacct:/pod", "4:cpuset,memory:/set", "1:name=systemd:/set"
    )
    for mounted in mounts:
        limit(mounted / "set", "100000", v1=True)
        limit(mounted / "pod", "400000" if "cpu," in mounted.name else "100000", v1=True)

    assert tree.cpus() == 4


@pytest.mark.parametrize("v1", [False, True])
def test_a_container_without_a_cgroup_namespace_has_its_cgroup_as_the_root(
    tree: Tree, v1: bool
) -> None:
    mounted = tree.mount("cgroup", root="/kubepods/pod", v1="cpu" if v1 else "")
    tree.is_in("1:cpu:/kubepods/pod/c" if v1 else "0::/kubepods/pod/c")
    limit(mounted, "500000", v1=v1)
    limit(mounted / "c", "400000", v1=v1)
    limit(mounted / "kubepods" / "pod" / "c", "100000", v1=v1)

    assert tree.cpus() == 4


@pytest.mark.parametrize("path", ["/", "/..", "/../..", "/../beside"])
def test_a_process_at_the_root_of_its_cgroup_namespace_has_the_quota_of_the_mount(
    tree: Tree, path: str
) -> None:
    mounted = tree.mount("cgroup/ours")
    tree.is_in(f"0::{path}")
    limit(mounted, "300000")
    for beyond in ("cgroup", "cgroup/beside", "cgroup/ours/beside"):
        limit(tree.base / beyond, "100000")

    assert tree.cpus() == 3


@pytest.mark.parametrize(
    ("root", "path", "cpus"),
    [
        ("/..", "/", 5),
        ("/..", "/a", 5),
        ("/..", "/../a", 3),
        ("/../..", "/../a", 5),
        ("/../a", "/", MACHINE),
    ],
)
def test_a_mount_from_outside_the_cgroup_namespace_counts_as_far_as_it_is_above_us(
    tree: Tree, root: str, path: str, cpus: int
) -> None:
    mounted = tree.mount("cgroup", root=root)
    tree.is_in(f"0::{path}")
    limit(mounted, "500000")
    limit(mounted / "a", "300000")

    assert tree.cpus() == cpus


@pytest.mark.parametrize("root", ["/other", "/po", "/pod/child"])
def test_a_mount_that_is_not_above_us_does_not_count(tree: Tree, root: str) -> None:
    limit(tree.mount("cgroup", root=root), "100000")
    tree.is_in("0::/pod")

    assert tree.cpus() == MACHINE


def test_every_mount_that_shows_us_counts(tree: Tree) -> None:
    limit(tree.mount("a", root="/other"), "100000")
    limit(tree.mount("b", root="/pod"), "max")
    limit(tree.mount("c"), "300000")
    tree.is_in("0::/pod")

    assert tree.cpus() == 3


@pytest.mark.parametrize(("v1", "v2", "cpus"), [("300000", None, 3), ("300000", "200000", 2)])
def test_a_hybrid_machine_has_both_versions(tree: Tree, v1: str, v2: str | None, cpus: int) -> None:
    old, new = tree.mount("cpu", v1="cpu"), tree.mount("unified")
    tree.is_in("2:cpuacct:/a", "1:cpu:/old", "0::/new")
    limit(old / "old", v1, v1=True)
    if v2:
        limit(new / "new", v2)

    assert tree.cpus() == cpus


def test_awkward_names_are_read_as_they_are(tree: Tree) -> None:
    name = os.fsdecode("a b:c\\d\x85\u2028é".encode() + b"\xff")
    (tree.proc / "self" / "cgroup").write_bytes(b"0::/" + os.fsencode(name) + b"\n")
    limit(tree.mount("with a space") / name, "300000")

    assert tree.cpus() == 3


def test_awkward_names_of_a_mount_are_read_as_they_are(tree: Tree) -> None:
    tree.is_in("0::/a b\\c/d")
    limit(tree.mount("with a space", root="/a\\040b\\134c") / "d", "300000")

    assert tree.cpus() == 3


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("quota", ["max", "-1", "0", "", "x", "1e5", "9" * 5000, "100000 100000"])
def test_no_quota_and_one_that_makes_no_sense_limit_nothing(
    tree: Tree, quota: str, v1: bool
) -> None:
    tree.is_in("1:cpu:/pod" if v1 else "0::/pod")
    limit(tree.mount("cgroup", v1="cpu" if v1 else "") / "pod", quota, v1=v1)

    assert tree.cpus() == MACHINE


@pytest.mark.parametrize("period", ["0", "-100000", ""])
def test_a_period_that_makes_no_sense_limits_nothing(tree: Tree, period: str) -> None:
    tree.is_in("1:cpu:/pod")
    limit(tree.mount("cgroup", v1="cpu") / "pod", "100000", period, v1=True)

    assert tree.cpus() == MACHINE


@pytest.mark.parametrize(
    "line",
    [
        "31 23 0:28 / /\\000 rw - cgroup2 cgroup2 rw",
        "31 23 0:28 / /nowhere rw - cgroup2 cgroup2 rw",
        "31 23 0:28 / /nowhere rw cgroup2 cgroup2 rw",
        "31 23 0:28 /",
        " - ",
    ],
)
def test_a_mount_that_makes_no_sense_hides_no_other(tree: Tree, line: str) -> None:
    tree.is_in("0::/")
    tree.mountinfo(f"{line}\n")
    limit(tree.mount("cgroup"), "300000")

    assert tree.cpus() == 3


@pytest.mark.parametrize("name", ["cgroup", "mountinfo"])
def test_without_a_word_about_cgroups_nothing_is_limited(tree: Tree, name: str) -> None:
    tree.is_in("0::/")
    limit(tree.mount("cgroup"), "300000")
    assert tree.cpus() == 3
    (tree.proc / "self" / name).unlink()

    assert tree.cpus() == MACHINE


def test_what_cannot_be_read_limits_nothing_and_hides_nothing(tree: Tree) -> None:
    tree.is_in("0::/pod/gone (deleted)")
    mounted = tree.mount("cgroup")
    (mounted / "cpu.max").mkdir()
    limit(mounted / "pod", "300000")

    assert tree.cpus() == 3


lines = st.lists(
    st.sampled_from([b"0::/", b"1:cpu:/a", b" - ", b"cgroup2", b"cgroup", b"rw,cpu", b"\n", b" "])
    | st.sampled_from([b"31 23 0:28 / /nowhere rw,relatime - cgroup2 cgroup2 rw\n", b"\\000", b":"])
    | st.binary(max_size=8)
).map(b"".join)


@with_files
@given(lines, lines)
def test_whatever_is_said_about_cgroups_there_is_an_answer(cgroup: bytes, mounts: bytes) -> None:
    with tempfile.TemporaryDirectory() as base:
        tree = Tree(Path(base))
        (tree.proc / "self" / "cgroup").write_bytes(cgroup)
        (tree.proc / "self" / "mountinfo").write_bytes(mounts)

        assert 1 <= tree.cpus() <= MACHINE


def cpus_of_a_process(first: str) -> list[int]:
    """Have a process do *first*, and count its CPUs: as it is, and were its affinity wider."""
    program = (
        "import os; from common.cpus import available_cpus;"
        f"{first}; print(available_cpus(), available_cpus(affinity={MACHINE}))"
    )
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(word) for word in ended.stdout.split()]


def test_a_process_has_at_most_the_cpus_of_its_affinity(tmp_path: Path) -> None:
    one = min(os.sched_getaffinity(0))

    bound, _ = cpus_of_a_process(first=f"os.sched_setaffinity(0, [{one}])")

    assert bound == 1
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.fixture
def one_cpu() -> Iterator[Path]:
    """Make a cgroup that has a quota of one CPU from the kernel."""
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to make a cgroup")
    for mounted in map(
        Path, ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup")
    ):
        if not (mounted / "cgroup.procs").exists():
            continue
        made = mounted / f"coremond-test-{uuid4()}"
        try:
            made.mkdir()
        except OSError as error:
            pytest.skip(f"missing: a cgroup file system that can be written ({error})")
        try:
            for name, quota in (("cpu.max", "100000 100000"), ("cpu.cfs_quota_us", "100000")):
                if (made / name).exists():
                    (made / name).write_text(quota)
                    yield made
                    return
        finally:
            made.rmdir()
    pytest.skip("missing: the CPU controller, of cgroups v1 or in v2's cgroup.subtree_control")


def entering(group: Path) -> str:
    """Write Python by which a process enters *group*."""
    return f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"


def test_a_process_in_a_cgroup_of_one_cpu_has_one(one_cpu: Path) -> None:
    cpus = cpus_of_a_process(first=entering(one_cpu))

    assert cpus == [1, 1]


def test_a_process_below_a_cgroup_of_one_cpu_has_one(one_cpu: Path) -> None:
    below = one_cpu / "below"
    below.mkdir()
    try:
        cpus = cpus_of_a_process(first=entering(below))
    finally:
        below.rmdir()

    assert cpus == [1, 1]
