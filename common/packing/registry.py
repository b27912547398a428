"""The ways of packing there are: a further one is a file of its own, and a line here."""

import os

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import Codec, Units, read_exactly
from common.packing.gzip_members import GzipMembers
from common.packing.lz4_frames import Lz4Frames
from common.packing.sparse import is_zero
from common.packing.zstd_frames import ZstdFrames
from common.settings import EnvReader

CODECS: dict[CodecName, Codec] = {
    codec.name: codec for codec in (GzipMembers(), ZstdFrames(), Lz4Frames())
}


def read_codec(reader: EnvReader) -> CodecName:
    """Read the setting of how cores are stored."""
    return reader.read("COREMON_CODEC", codec_name, "gzip")


def codec_name(text: str) -> CodecName:
    """Read the name of a way of packing."""
    for name in CODECS:
        if name == text:
            return name
    raise ValueError(f"expected one of {', '.join(CODECS)}")


def codec_of(descriptor: int) -> Codec | None:
    """Say by its first bytes how the open file is packed; None where it is not."""
    start = os.pread(descriptor, 4, 0)
    return next((codec for codec in CODECS.values() if start.startswith(codec.magic)), None)


def whole_units(descriptor: int, codec: Codec) -> tuple[Units, bytearray]:
    """Find the units up to the first that is damaged or not all there; each is unpacked.

    The second result says of each, 1 or 0, whether it is data: not all zeros.
    """
    units, is_data = Units(), bytearray()
    try:
        for packed, size in codec.walk(descriptor):
            place = units.end
            units.add(packed, size)
            is_data.append(not is_zero(codec.unpack(read_exactly(descriptor, packed, place), size)))
    except CorruptError:
        pass  # that is where it ends
    units.keep(len(is_data))
    return units, is_data
