import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import corepattern
from common.corepattern import PATTERN_LIMIT, CorePattern, read_pattern
from tests.unit.factories import hostile_texts, without_deadline

APPORT = "|/usr/share/apport/apport"
SYSTEMD = "|/usr/lib/systemd/systemd-coredump"

KNOWN = {
    # Apport, positional
    APPORT: ("pipe", "apport", "before 0.1"),
    f"{APPORT} %p %s %c": ("pipe", "apport", "0.0.1 to 2.12"),
    f"{APPORT} %p %s %c %P": ("pipe", "apport", "2.13 to 2.20.7"),
    f"{APPORT} %p %s %c %d %P": ("pipe", "apport", "2.20.8 to 2.20.11"),
    f"{APPORT} %p %s %c %d %P %E": ("pipe", "apport", "2.20.11, updated"),
    # Apport, with options
    f"{APPORT} -p%p -s%s -c%c -d%d -P%P -u%u -g%g -- %E": ("pipe", "apport", "2.21 to 2.32"),
    f"{APPORT} -p%p -s%s -c%c -d%d -P%P -u%u -g%g -F%F -- %E": (
        "pipe",
        "apport",
        "2.33 or later",
    ),
    "|/opt/apport/apport --new %p": ("pipe", "apport", ""),
    # systemd-coredump
    f"{SYSTEMD} %p %u %g %s %t %e": ("pipe", "systemd-coredump", "215 to 228"),
    f"{SYSTEMD} %P %u %g %s %t %c %e": ("pipe", "systemd-coredump", "229 to 238"),
    f"{SYSTEMD} %P %u %g %s %t %c %h %e": ("pipe", "systemd-coredump", "239 to 242"),
    f"{SYSTEMD} %P %u %g %s %t %c %h": ("pipe", "systemd-coredump", "243 to 256"),
    f"{SYSTEMD} %P %u %g %s %t %c %h %d": ("pipe", "systemd-coredump", "243 to 256, updated"),
    f"{SYSTEMD} %P %u %g %s %t %c %h %d %F": ("pipe", "systemd-coredump", "257 to 260"),
    f"{SYSTEMD} %P %u %g %s %t %c %h %d %F %I": ("pipe", "systemd-coredump", "261 or later"),
    "|/lib/systemd/systemd-coredump %P %u %g %s %t %c %h %d %F %I %Z": (
        "pipe",
        "systemd-coredump",
        "",
    ),
    "@@/run/systemd/coredumpd/kernel": ("request-socket", "systemd-coredump", "262 or later"),
    # ABRT
    "|/usr/libexec/abrt-hook-ccpp %s %c %p %u %g %t e %P %I %h": ("pipe", "abrt", ""),
    # Files
    "core": ("file", "file", ""),
    "core.%p": ("file", "file", ""),
    "/tmp/core-%e-%p": ("file", "file", ""),
    "%e.core": ("file", "file", ""),
    # Ours
    "/var/crash/core.%e.%p.%h.%t": ("file", "coremond", ""),
    "@@/run/coremond/kernel.sock": ("request-socket", "coremond", ""),
    "@/run/coremond/kernel.sock": ("socket", "coremond", ""),
    "|/opt/coremond/bin/corectl intake -P%P -p%p -- %E": ("pipe", "coremond", ""),
    "|/opt/bin/python3 -m services.corectl intake -P%P": ("pipe", "coremond", ""),
    # Nobody
    "": ("none", "discard", ""),
    "|/bin/false": ("pipe", "discard", ""),
    "|/usr/bin/true %p": ("pipe", "discard", ""),
    # Others
    "|/wsl-capture-crash %t %E %p %s": ("pipe", "unknown", ""),
    "|/opt/corectl status": ("pipe", "unknown", ""),
    "|/usr/bin/apportage %p": ("pipe", "unknown", ""),
    "|": ("pipe", "unknown", ""),
    "@/run/other.sock": ("socket", "unknown", ""),
}


@pytest.mark.parametrize("line", KNOWN)
def test_every_known_line_is_recognised(line: str) -> None:
    found = read_pattern(line + "\n")

    assert (found.form, found.handler, found.version) == KNOWN[line]


def test_an_unknown_handler_is_called_by_its_program() -> None:
    assert read_pattern("|/wsl-capture-crash %t").name == "wsl-capture-crash"
    assert read_pattern("|").name == "no program"
    assert read_pattern("@/run/other.sock").name == "/run/other.sock"


@without_deadline
@given(text=hostile_texts | st.text("|@/ %apcore.\n", max_size=40))
def test_no_line_is_too_strange_to_be_read(text: str) -> None:
    found = read_pattern(text)

    assert isinstance(found, CorePattern)
    assert isinstance(found.name + found.directory, str)


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        ("/var/crash/core.%p", "/var/crash"),
        ("/var//crash/core.%p", "/var/crash"),
        ("/100%%/core", "/100%"),
        ("/var/%h/core", ""),
        ("core.%p", ""),
        ("|/bin/false", ""),
    ],
)
def test_the_directory_of_a_file_is_told_where_it_is_always_the_same(
    line: str, directory: str
) -> None:
    assert read_pattern(line).directory == directory


@pytest.mark.parametrize(
    ("line", "is_core"),
    [("/c/core", True), ("/c/core.%p", True), ("/c/core-%p", False), ("/c/%e.core", False)],
)
def test_a_name_that_coremond_takes_for_a_core_is_told(line: str, is_core: bool) -> None:
    assert read_pattern(line).is_core_name == is_core


@without_deadline
@given(folder=st.text("ab%. -", min_size=1, max_size=12).map(lambda text: f"/v{text}"))
def test_a_file_pattern_reads_back_as_what_was_written(folder: str) -> None:
    found = read_pattern(corepattern.file_pattern(folder))

    assert (found.form, found.handler) == ("file", "coremond")
    assert found.directory == folder


def test_socket_and_pipe_patterns_read_back_as_ours() -> None:
    asking = corepattern.socket_pattern("/run/coremond/kernel.sock", asks_first=True)
    plain = corepattern.socket_pattern("/run/coremond/kernel.sock", asks_first=False)
    pipe = corepattern.pipe_pattern("/opt/c/bin/corectl", "/e")

    assert [read_pattern(text).form for text in (asking, plain, pipe)] == [
        "request-socket",
        "socket",
        "pipe",
    ]
    assert {read_pattern(text).handler for text in (asking, plain, pipe)} == {"coremond"}


def test_what_a_crashed_process_chooses_comes_last_in_the_pipe() -> None:
    assert corepattern.pipe_pattern("/c/corectl") == (
        "|/c/corectl intake -P%P -p%p -i%i -u%u -g%g -s%s -t%t -c%c -d%d -F%F -h%h -- %E"
    )


def test_the_env_file_stands_in_the_pipe_if_there_is_room() -> None:
    room = PATTERN_LIMIT - len(corepattern.pipe_pattern("/c/corectl")) - len(" --env ")

    fits = corepattern.pipe_pattern("/c/corectl", "/" + "e" * (room - 1))
    too_long = corepattern.pipe_pattern("/c/corectl", "/" + "e" * room)

    assert len(fits) == PATTERN_LIMIT
    assert too_long == corepattern.pipe_pattern("/c/corectl")


def test_a_percent_sign_in_a_path_is_none_of_the_kernels() -> None:
    assert corepattern.pipe_pattern("/c%p/corectl", "/e%").startswith(
        "|/c%%p/corectl intake --env /e%% -P%P"
    )


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("/" + "c" * PATTERN_LIMIT, "it has 128 bytes, and a core_pattern may have 127"),
        ("/" + "é" * 64, "it has 129 bytes"),
        ("/a\nb/core", "a line break"),
        ("@@/a b", "refuses a socket's path with a space"),
        ("@/a/../b", "or .. in it"),
    ],
)
def test_what_the_kernel_would_not_take_is_told_before(pattern: str, problem: str) -> None:
    assert problem in corepattern.problem_of(pattern)


def test_what_the_kernel_takes_has_no_problem() -> None:
    assert corepattern.problem_of("/" + "c" * (PATTERN_LIMIT - 1)) == ""
    assert corepattern.problem_of("@@/run/coremond/kernel.sock") == ""
