"""The C library's allocator, told to keep what packing takes and gives back for each block.

By default it returns such pieces to the kernel, and has them mapped and zeroed anew each time: a
quarter of the time that packing takes. Source: mallopt(3), malloc_trim(3).
"""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_ARENAS = 2
_KEPT = 64 * 2**20
_LARGE = 32 * 2**20


def keep_memory() -> None:
    """Keep what is given back, up to a limit; where the library cannot, it is only slower."""
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_ARENA_MAX, _ARENAS)


def give_memory_back() -> None:
    """Return to the kernel what was kept and is not used."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
