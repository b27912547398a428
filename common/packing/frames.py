"""How zstd and lz4 are unpacked, block by block, when nothing in them can be trusted.

Both formats bound what a block may become (zstd: 128 KiB, lz4: 4 MiB), and say before each block
where it ends. So nothing is lost before damage, and the damage has a place. Each function takes a
`Supply`, gives blocks of at most `BLOCK` bytes, and raises `CorruptError` that says what is wrong
and at which byte, once all whole blocks before it were given.
"""

from collections.abc import Iterator

import zstandard
from lz4 import frame

from common.errors import CorruptError
from common.packing.codec import BLOCK
from common.packing.streams import MOST_WINDOW
from common.packing.supply import Supply

_SKIPPABLE = 0x184D2A50
_ZSTD = zstandard.FRAME_HEADER
_ZSTD_BLOCK = 2**17
_LZ4 = b"\x04\x22\x4d\x18"
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_STORED = 1 << 31


def zstd(supply: Supply) -> Iterator[bytes]:
    """Unpack frames (RFC 8878), block by block, and pass over skippable ones."""
    context = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
    while magic := _frame(supply):
        if magic != _ZSTD:
            raise _no_frame(supply)
        yield from _zstd_frame(supply, context)


def _zstd_frame(supply: Supply, context: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    place = supply.place - len(_ZSTD)
    unpacker = context.decompressobj()
    try:
        start, has_checksum = _read_zstd_header(supply)
        unpacker.decompress(start)
        is_last = False
        while not is_last:
            place = supply.place
            header = supply.exactly(3, "a block's header")
            number = int.from_bytes(header, "little")
            is_last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
            if kind == 3 or size > _ZSTD_BLOCK:
                raise CorruptError(f"a block's header cannot be, at byte {place}")
            size = 1 if kind == 1 else size  # a byte that is repeated
            data = supply.take(size)
            if block := unpacker.decompress(header + data):
                yield block
            if len(data) < size:
                raise supply.ended("a block")
        if has_checksum:
            place = supply.place
            unpacker.decompress(supply.exactly(4, "a checksum"))
    except zstandard.ZstdError as error:
        raise CorruptError(f"a frame is damaged at byte {place}: {error}") from error
    if not unpacker.eof:
        raise CorruptError(f"a frame's last block is not its end, at byte {place}")


def _read_zstd_header(supply: Supply) -> tuple[bytes, bool]:
    """Give the header of the frame whose magic was taken, and whether a checksum ends it."""
    place, what = supply.place - len(_ZSTD), "a frame's header"
    header = _ZSTD + supply.exactly(1, what)
    header += supply.exactly(zstandard.frame_header_size(header) - len(header), what)
    found = zstandard.get_frame_parameters(header)
    if found.window_size > MOST_WINDOW:
        raise CorruptError(
            f"the frame at byte {place} asks for a window of {found.window_size} bytes, more than "
            f"{MOST_WINDOW}"
        )
    if found.dict_id:
        raise CorruptError(f"the frame at byte {place} needs the dictionary {found.dict_id}")
    return header, found.has_checksum


def lz4(supply: Supply) -> Iterator[bytes]:
    """Unpack frames (LZ4 Frame Format 1.6), block by block, and pass over skippable ones."""
    while magic := _frame(supply):
        if magic == _LZ4_LEGACY:
            place = supply.place - len(magic)
            raise CorruptError(f"a legacy frame (lz4 -l), which is not read, at byte {place}")
        if magic != _LZ4:
            raise _no_frame(supply)
        yield from _lz4_frame(supply)


def _lz4_frame(supply: Supply) -> Iterator[bytes]:
    place, unpacker = supply.place - len(_LZ4), frame.LZ4FrameDecompressor()
    try:
        flags, kind = fixed = supply.exactly(2, "a frame's header")
        if flags & 1:
            raise CorruptError(f"the frame at byte {place} needs a dictionary")
        rest = supply.exactly(9 if flags & 8 else 1, "a frame's header")
        unpacker.decompress(_LZ4 + fixed + rest)
        most = 1 << 8 + 2 * (kind >> 4 & 7)
        is_last = False
        while not is_last:
            place = supply.place
            header = supply.exactly(4, "a block's header")
            size = int.from_bytes(header, "little") & ~_STORED
            is_last = header == bytes(4)
            if size > most:
                raise CorruptError(f"a block's header cannot be, at byte {place}")
            size += 4 * bool(flags & (4 if is_last else 16))  # a checksum
            data = supply.take(size)
            yield from _lz4_blocks(unpacker, header + data)
            if len(data) < size:
                raise supply.ended("a block")
    except RuntimeError as error:
        raise CorruptError(f"a frame is damaged at byte {place}: {error}") from error
    if not unpacker.eof:
        raise CorruptError(f"a frame's end mark is not its end, at byte {place}")


def _lz4_blocks(unpacker: frame.LZ4FrameDecompressor, data: bytes) -> Iterator[bytes]:
    """Give all that *data* unpacks to; `needs_input` is true while there still is output."""
    block: bytes = unpacker.decompress(data, max_length=BLOCK)
    while block:
        yield block
        is_all = len(block) < BLOCK or unpacker.eof
        block = b"" if is_all else unpacker.decompress(b"", max_length=BLOCK)


def _frame(supply: Supply) -> bytes:
    """Give the magic of the next frame that is not skippable; nothing at the end."""
    while magic := supply.take(4):
        if int.from_bytes(magic, "little") & ~0xF != _SKIPPABLE:
            return magic
        size = supply.exactly(4, "a skippable frame")
        supply.skip(int.from_bytes(size, "little"), "a skippable frame")
    return b""


def _no_frame(supply: Supply) -> CorruptError:
    return CorruptError(f"garbage where a frame should begin, before byte {supply.place}")
