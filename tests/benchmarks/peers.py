"""The programs that others pack with, and unpack with."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.inputs import Input
from tests.benchmarks.measure import Outcome, fed, run, size_of

# One process for each file; the loop is the shell's own.
_LOOP = 'from=$1 to=$2; shift 2; for core in "$from"/*; do "$@" "$core" >"$to/${core##*/}"; done'


@dataclass(frozen=True, slots=True)
class Peer:
    """A command that packs a file, or its standard input, to its standard output."""

    name: str
    words: tuple[str, ...]
    package: str

    def missing(self) -> str:
        """Name the package where the command is not there."""
        return missing(self.words[0], self.package)

    def version(self) -> str:
        """Ask it."""
        return version(self.words[0])

    def pack(self, source: Input, target: Path) -> Outcome:
        """Run it, once for each core."""
        if source.is_many:
            loop: list[str | Path] = ["sh", "-euc", _LOOP, "sh", source.path, target, *self.words]
            return Outcome(seconds=run(loop, None, None), packed=size_of(target))
        with open(target, "wb") as output:
            if source.is_stream:
                with fed(source.path) as pipe:
                    seconds = run(self.words, pipe, output)
            else:
                seconds = run([*self.words, source.path], None, output)
        return Outcome(seconds=seconds, packed=size_of(target))


PEERS = (
    Peer("gzip -1", ("gzip", "-1", "-c"), "gzip"),
    Peer("pigz -1", ("pigz", "-1", "-c"), "pigz"),
    Peer("zstd -3 -T1", ("zstd", "-q", "-3", "-T1", "-c"), "zstd"),
    Peer("zstd -1 -T0", ("zstd", "-q", "-1", "-T0", "-c"), "zstd"),
    Peer("lz4", ("lz4", "-q", "-c"), "lz4"),
)


@dataclass(frozen=True, slots=True)
class Unpacker:
    """A command that unpacks a file."""

    name: str
    words: tuple[str, ...]
    package: str
    codec: str
    leaves_holes: bool = False
    """Whether it is given the target's name, and leaves holes in it, or writes all to a pipe."""

    def missing(self) -> str:
        """Name the package where the command is not there."""
        return missing(self.words[0], self.package)

    def unpack(self, packed: Path, target: Path) -> float:
        """Unpack into *target*; give the seconds."""
        if self.leaves_holes:
            named = ["-o", target, packed] if self.codec == "zstd" else [packed, target]
            return run([*self.words, *map(str, named)], None, None)
        with open(target, "wb") as output, open(packed, "rb") as file:
            return run(self.words, file, output)


UNPACKERS = (
    Unpacker("gunzip", ("gunzip", "-c"), "gzip", "gzip"),
    Unpacker("pigz -d", ("pigz", "-d", "-c"), "pigz", "gzip"),
    Unpacker("zstd -d", ("zstd", "-d", "-q", "-f"), "zstd", "zstd", leaves_holes=True),
    Unpacker("lz4 -d", ("lz4", "-d", "-q", "-f"), "lz4", "lz4", leaves_holes=True),
)


def missing(command: str, package: str) -> str:
    """Name the *package* where *command* is not there."""
    return "" if shutil.which(command) else f"{command} (Debian package {package})"


def version(command: str) -> str:
    """Give the first number with a point in what `command --version` says."""
    shown = subprocess.run([command, "--version"], capture_output=True, text=True)
    number = re.search(r"\d+\.[\d.]*\d", shown.stdout + shown.stderr)
    return f"{command} {number[0] if number else '?'}"
