"""A core that is packed in units, as the source of another packing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

from common.errors import CorruptError
from common.packing.codec import BLOCK, Codec, Unit, Units, read_exactly
from common.packing.reader import unpack
from common.packing.sources import Allowance, Claim


@dataclass(slots=True)
class PackedSource:
    """The core in the open packed file, up to a unit that is damaged.

    Each thread unpacks the unit it has claimed.
    """

    descriptor: int
    codec: Codec
    units: Units
    allowance: Allowance = field(default_factory=Allowance)
    cut: str = field(default="", init=False)
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
        is_hole = self._is_hole(unit)
        if why := self.allowance.refusal(unit.start, 0 if is_hole else unit.size):
            self.cut = why
            return None
        return Claim(unit.size, unit.start, is_hole=is_hole)

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
