"""The file that a core comes in as: packed at once, or raw, with holes for its zeros."""

import errno
import os
from collections.abc import Callable
from typing import Protocol

from common.item import Encoding, Packed
from common.packing.codec import BLOCK, Codec
from common.packing.crew import Crew
from common.packing.packer import Packer
from common.packing.registry import CODECS
from common.packing.sources import Source
from common.packing.sparse import write_data

ROOM = 2**20
"""Bytes at the end of a core that give way to its description on a full disk."""


class Part(Protocol):
    """One core on its way in, in the open file *descriptor*."""

    descriptor: int

    @property
    def written(self) -> int:
        """Bytes of the file so far."""
        ...

    def fill(self, source: Source, watch: Callable[[], None]) -> None:
        """Write all of *source*; *watch* is called before each piece of it is claimed."""
        ...

    def restart(self) -> None:
        """Forget all that came so far."""
        ...

    def end(self, cut: str, *, room: int = 0) -> Packed | None:
        """Let the file be what came so far, less *room* bytes that are needed otherwise.

        *cut* is why there is no more. The result is None where the file is not packed.
        """
        ...


class PackedPart:
    """A part that is packed as it comes."""

    def __init__(self, descriptor: int, codec: Codec, crew: Crew) -> None:
        self.descriptor = descriptor
        self._codec = codec
        self._crew = crew
        self._take_up()

    def _take_up(self) -> None:
        self._packer = Packer.resume(self.descriptor, self._codec, self._crew)

    @property
    def written(self) -> int:
        """Bytes of the file so far."""
        return self._packer.packed

    def fill(self, source: Source, watch: Callable[[], None]) -> None:
        """Pack all of *source*."""
        self._packer.run(source, watch)

    def restart(self) -> None:
        """Begin anew with an empty file."""
        os.ftruncate(self.descriptor, 0)
        self._take_up()

    def end(self, cut: str, *, room: int = 0) -> Packed | None:
        """Write what belongs behind the last unit; the units that *room* takes are given up."""
        try:
            return self._packer.end(cut, room=room)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT} or room:
                raise
            return self._packer.end(cut, room=ROOM)


class RawPart:
    """A part that stays as it comes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.written = 0
        self._size = os.fstat(descriptor).st_size

    def fill(self, source: Source, watch: Callable[[], None]) -> None:
        """Write all of *source*, pages of zeros as holes."""
        buffer = bytearray(BLOCK)
        watch()
        while claim := source.claim(buffer):
            size = claim.size
            if not claim.is_hole:
                size = source.fill(claim, buffer)
                with memoryview(buffer) as view:
                    self.written += write_data(self.descriptor, view[:size], self._size)
            self._size += size
            watch()

    def restart(self) -> None:
        """Begin anew with an empty file."""
        os.ftruncate(self.descriptor, 0)
        self.written = self._size = 0

    def end(self, cut: str, *, room: int = 0) -> None:  # noqa: ARG002  # nobody packed it
        """Set the file's size, which its last zeros did not."""
        self._size = max(0, self._size - room)
        os.ftruncate(self.descriptor, self._size)


def open_part(descriptor: int, encoding: Encoding, crew: Crew) -> Part:
    """Begin a part in the open file, or take up what an earlier crashagent left in it."""
    if encoding == "raw":
        return RawPart(descriptor)
    return PackedPart(descriptor, CODECS[encoding], crew)
