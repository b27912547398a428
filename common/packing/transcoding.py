"""A core that is packed in units, as the source of another packing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

from common.errors import CorruptError
from common.packing.codec import BLOCK, Codec, Unit, Units, read_exactly
from common.packing.reader import unpack
from common.packing.sources import Claim, too_long, too_much_data


@dataclass(slots=True)
class PackedSource:
    """The core in the open packed file, up to a unit that is damaged.

    It is cut short before its data is more than *max_data* bytes, and after *max_size* bytes; 0 is
    no limit. Each thread unpacks the unit it has claimed.
    """

    descriptor: int
    codec: Codec
    units: Units
    max_data: int = 0
    max_size: int = 0
    cut: str = field(default="", init=False)
    _data: int = field(default=0, init=False)
    _left: Iterator[Unit] = field(init=False)
    _damaged_at: int = field(init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self._left = iter(self.units)
        self._damaged_at = self.units.size

    @property
    def pieces(self) -> int:
        """As many as there are units."""
        return len(self.units)

    def claim(self, buffer: bytearray) -> Claim | None:  # noqa: ARG002  # `fill` reads
        """Claim the next unit."""
        unit = next(self._left, None)
        if unit is None or not unit.size or self.cut:
            return None
        if 0 < self.max_size <= unit.start:
            self.cut = too_long(self.max_size)
            return None
        self._data += 0 if self._is_hole(unit) else unit.size
        if 0 < self.max_data < self._data:
            self.cut = too_much_data(self.max_data)
            return None
        return Claim(unit.size, unit.start)

    def _is_hole(self, unit: Unit) -> bool:
        zeros = self.codec.zeros(BLOCK)
        if (unit.size, unit.packed) != (BLOCK, len(zeros)):
            return False
        try:
            return read_exactly(self.descriptor, unit.packed, unit.place) == zeros
        except CorruptError:
            return False

    def fill(self, claim: Claim, buffer: bytearray) -> int:
        """Unpack what was claimed; the core ends before the first unit that is damaged."""
        try:
            block = unpack(self.descriptor, self.codec, self.units.at(claim.start))
        except CorruptError as error:
            with self._lock:
                if claim.start <= self._damaged_at:
                    self._damaged_at, self.cut = claim.start, str(error)
            return 0
        buffer[: len(block)] = block
        return len(block)
