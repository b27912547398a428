"""A packed core as a file that can be read anywhere, without unpacking more than is read."""

import io
import os
from collections import OrderedDict
from threading import Lock

from common.errors import CorruptError
from common.packing.codec import BLOCK, Codec, Unit, Units, read_exactly
from common.packing.registry import codec_of
from common.packing.sparse import ZEROS

_KEPT = 4
"""Unpacked units that are kept at hand, 1 MiB each."""


class PackedReader(io.RawIOBase):
    """Reads the open file *descriptor*, which stays its owner's, as a core.

    Wrap it in `io.BufferedReader` for many small reads in a row. Raises `CorruptError` where the
    file is none of ours, and in `pread` where a unit of it is damaged. The *units* are found anew
    if they are not known.
    """

    def __init__(self, descriptor: int, units: Units | None = None) -> None:
        codec = codec_of(descriptor)
        if codec is None:
            raise CorruptError("its first bytes, at byte 0, are of no packed core")
        self._descriptor = descriptor
        self._codec: Codec = codec
        self._units = codec.units(descriptor) if units is None else units
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()
        self._place = 0
        self.size = self._units.size
        """Bytes of the core."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read at most *size* bytes of the core at *offset*; fewer only where it ends."""
        if size < 0 or offset < 0:
            raise ValueError(f"there are no {size} bytes at {offset}")
        parts = []
        end = min(offset + size, self.size)
        while offset < end:
            unit = self._units.at(offset)
            block = self._block(unit)
            parts.append(block[offset - unit.start : end - unit.start])
            offset = unit.start + unit.size
        return b"".join(parts)

    def _block(self, unit: Unit) -> bytes:
        with self._lock:
            block = self._kept.pop(unit.place, None)
            if block is None:
                block = unpack(self._descriptor, self._codec, unit)
            self._kept[unit.place] = block
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return block

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any place can be sought."""
        return True

    def tell(self) -> int:
        """Give the place that is read next."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which may be behind the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"there is no place {offset} from {whence}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read up to the end of a unit into *buffer*; give the number of bytes."""
        view = memoryview(buffer).cast("B")
        if self._place >= self.size or not view:
            return 0
        unit = self._units.at(self._place)
        data = memoryview(self._block(unit))[self._place - unit.start :][: len(view)]
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


def unpack(descriptor: int, codec: Codec, unit: Unit) -> bytes:
    """Read and unpack one unit of the open file; a `CorruptError` says where it is."""
    try:
        packed = read_exactly(descriptor, unit.packed, unit.place)
        if unit.size == BLOCK and packed == codec.zeros(BLOCK):
            return ZEROS
        return codec.unpack(packed, unit.size)
    except CorruptError as error:
        where = f"the unit at byte {unit.place} of it, byte {unit.start} of its content"
        raise CorruptError(f"{where}: {error}") from error
