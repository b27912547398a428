"""A core in an open file, however and by whomever it is packed: how it is read, and packed anew."""

import os
from collections.abc import Iterator
from itertools import chain

from common.errors import CorruptError
from common.packing.codec import BLOCK, Codec, Units
from common.packing.incoming import content, format_of
from common.packing.reader import PackedReader
from common.packing.registry import codec_of
from common.packing.sources import Allowance, FileSource, Source, StreamSource
from common.packing.transcoding import PackedSource


class OpenCore:
    """Looks at the open file *descriptor*, which stays its owner's.

    A file that begins as if it were packed, of which nothing can be unpacked, is taken as it is.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._units: Units | None = None
        self._reader: PackedReader | None = None
        self._blocks: Iterator[bytes] | None = None
        self._head = b""
        self.size: int | None = os.fstat(descriptor).st_size
        """Bytes of the core; None where nobody knows before it is unpacked."""
        self.damage = ""
        """Why it is taken as it is, though it seems packed; empty if it is not so."""
        if format_of(descriptor) != "raw":
            self._look_inside()

    def _look_inside(self) -> None:
        codec = codec_of(self._descriptor)
        try:
            if codec:
                units = codec.units(self._descriptor)
                reader = PackedReader(self._descriptor, units)
                reader.pread(1, 0)
                self._units, self._reader, self.size = units, reader, reader.size
                return
        except CorruptError:
            pass  # somebody else packed it, or nothing of it is left
        blocks, head = content(self._descriptor), bytearray()
        try:
            for block in blocks:
                head += block
                if len(head) >= BLOCK:
                    break
        except CorruptError as error:
            if not head:
                self.damage = str(error)
                return
            blocks = _broken_off(error)
        self._head, self._blocks, self.size = bytes(head), blocks, None

    @property
    def codec(self) -> Codec | None:
        """How it is packed, if in units as ours; None if it is not."""
        return codec_of(self._descriptor) if self._units is not None else None

    def read(self, size: int, offset: int) -> bytes:
        """Read at most *size* bytes of the core at *offset*.

        What somebody else packed is known up to its first MiB only.
        """
        if self._reader:
            try:
                return self._reader.pread(size, offset)
            except CorruptError as error:
                raise OSError(str(error)) from error
        if self._blocks is None:
            return os.pread(self._descriptor, size, offset)
        return self._head[offset : offset + size]

    def source(self, allowance: Allowance | None = None) -> Source:
        """Give what packs the core anew, once."""
        codec, allowance = self.codec, allowance or Allowance()
        if codec and self._units is not None:
            return PackedSource(self._descriptor, codec, self._units, allowance)
        if self._blocks is None:
            return FileSource(self._descriptor, allowance)
        return StreamSource.of(chain([self._head], self._blocks), allowance)


def _broken_off(error: CorruptError) -> Iterator[bytes]:
    """Give nothing, and say again why."""
    yield from ()
    raise error
