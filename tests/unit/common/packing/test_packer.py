import errno
import gzip
import os
import resource
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CorruptError
from common.item import CodecName, Packed
from common.packing.codec import BLOCK, Pack, Parts
from common.packing.crew import Crew
from common.packing.packer import Packer
from common.packing.registry import CODECS
from common.packing.restoring import unpacked
from common.packing.sources import MANY, Claim, FileSource, StreamSource
from tests.unit.common.packing.cases import (
    NOISE,
    SOURCES,
    Core,
    are_free,
    codecs,
    cores,
    each_codec,
    pack,
    packed,
    piece_sizes,
    source_of,
    within_seconds,
    workers,
)
from tests.unit.factories import content_of, memory_file, small_disk, with_files

BLOCKS = [bytes([number]) + NOISE[1:] for number in range(12)]
WHOLE = b"".join(BLOCKS)


class BrokenError(Exception):
    """What a test breaks the packing with."""


class Pieces:
    """A source of `BLOCKS`; *at* is called at each step, with its name and the number."""

    cut = ""
    pieces = MANY

    def __init__(self, at: Callable[[str, int], None] = lambda step, number: None) -> None:
        self.at = at
        self.claimed = 0
        self.busy = 0
        self._lock = threading.Lock()

    def claim(self, buffer: bytearray) -> Claim | None:
        self.at("claim", self.claimed)
        if self.claimed == len(BLOCKS):
            return None
        self.claimed += 1
        return Claim(BLOCK, (self.claimed - 1) * BLOCK)

    def fill(self, claim: Claim, buffer: bytearray) -> int:
        with self._lock:
            self.busy += 1
        try:
            number = claim.start // BLOCK
            self.at("fill", number)
            buffer[:BLOCK] = BLOCKS[number % len(BLOCKS)]
        finally:
            with self._lock:
                self.busy -= 1
        return BLOCK


class Raw:
    """Codec gzip, but it calls *at* at each pack."""

    def __init__(self, at: Callable[[int], None]) -> None:
        self._at = at

    def __getattr__(self, name: str) -> object:
        return getattr(CODECS["gzip"], name)

    def packer(self) -> Pack:
        really = CODECS["gzip"].packer()

        def pack_one(block: memoryview) -> Parts:
            self._at(block[0])
            return really(block)

        return pack_one


def raise_at(step: str, number: int) -> Callable[[str, int], None]:
    def at(found: str, place: int) -> None:
        if (found, place) == (step, number):
            raise BrokenError(f"{step} {number}")

    return at


def content_in(target: int) -> bytes:
    return b"".join(unpacked(target)) if os.fstat(target).st_size else b""


def assert_true(facts: Packed, target: int) -> bytes:
    """Compare *facts* with what is in the file; give its content."""
    file = content_of(target)
    blocks = list(unpacked(target))
    content = b"".join(blocks)
    assert facts == Packed(
        size=len(content),
        data=sum(len(block) for block in blocks if any(block)),
        packed=len(file),
        crc32=zlib.crc32(file),
        cut=facts.cut,
    )
    return content


@with_files
@given(
    core=cores,
    kind=st.sampled_from(SOURCES),
    sizes=piece_sizes,
    codec=codecs,
    workers=workers,
)
def test_what_is_packed_from_any_source_reads_back_and_all_that_is_said_of_it_is_so(
    core: Core, kind: str, sizes: list[int], codec: CodecName, workers: int
) -> None:
    with source_of(core, kind, sizes) as source:
        facts, file = within_seconds(lambda: pack(source, codec, workers))

    with memory_file(file) as target:
        assert assert_true(facts, target) == core.content
    assert facts.data == core.data
    assert not facts.cut


@each_codec
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("size", [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_any_size_is_packed_whole(codec: CodecName, kind: str, size: int) -> None:
    content = (NOISE * 2)[:size]

    with memory_file(content) as file:
        if kind == "file":
            result = pack(FileSource(file), codec, 2)
        elif kind == "stream":
            result = pack(StreamSource.of([content[:1], content[1:]]), codec, 2)
        else:
            with source_of(Core(()), kind, [1]) if not size else _packed(content, kind) as source:
                result = pack(source, codec, 2)

    with memory_file(result.file) as target:
        assert assert_true(result.facts, target) == content


@contextmanager
def _packed(content: bytes, kind: str) -> Iterator[StreamSource]:
    name = next(name for name in CODECS if name == kind)
    with memory_file(packed(content, name)) as file:
        from_it = unpacked(file)
        yield StreamSource.of(from_it)


def ahead(workers: int) -> int:
    """Say how many pieces may be claimed, and not be written."""
    return workers + 2


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_a_slow_first_piece_is_still_the_first(workers: int) -> None:
    others_are_done = threading.Event()
    filled = []

    def at(step: str, number: int) -> None:
        if (step, number) == ("fill", 0):
            assert others_are_done.wait(20)
        elif step == "fill":
            filled.append(number)
            if len(filled) == ahead(workers) - 1:
                others_are_done.set()

    result = within_seconds(lambda: pack(Pieces(at), "gzip", workers))

    assert gzip.decompress(result.file) == WHOLE


@pytest.mark.parametrize("workers", [2, 4])
def test_two_pieces_beside_the_crew_are_held_while_the_first_is_slow(
    workers: int,
) -> None:
    go_on = threading.Event()
    all_but_one_wait = threading.Event()
    most = ahead(workers)
    source = Pieces()
    filled: list[int] = []

    def at(step: str, number: int) -> None:
        if (step, number) == ("fill", 0):
            assert go_on.wait(20)
        elif step == "fill":
            filled.append(number)
            if len(filled) >= most - 1:
                all_but_one_wait.set()

    source.at = at
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        running = threading.Thread(target=packer.run, args=(source,))
        running.start()
        assert all_but_one_wait.wait(20)
        time.sleep(0.2)  # so that what should not go on could
        claimed = source.claimed
        go_on.set()
        running.join(20)

        assert claimed == most
        assert packer.size == len(WHOLE)


@pytest.mark.parametrize("workers", [3, 4])
def test_pieces_that_wait_for_a_slow_disk_are_bounded_too(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, others = threading.Event(), threading.Semaphore(0)
    pwritev = os.pwritev

    def at(step: str, number: int) -> None:
        """Let whoever has the first piece write all that may be claimed: it alone is stuck."""
        if step == "fill" and number:
            others.release()
        elif step == "fill":
            for _ in range(ahead(workers) - 1):
                others.acquire(timeout=5)
            time.sleep(0.1)  # until the last of them is packed, too

    def stuck(*args: object) -> int:
        assert go_on.wait(60)
        return pwritev(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwritev", stuck)
    source = Pieces(at)
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        running = threading.Thread(target=packer.run, args=(source,))
        running.start()
        claimed = -1
        while claimed != source.claimed:
            claimed = source.claimed
            time.sleep(0.5)
        go_on.set()
        running.join(60)

        assert assert_true(packer.end(), target) == WHOLE
    assert claimed == ahead(workers), f"{claimed} pieces are in memory, and none is written"


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("step", ["claim", "fill", "watch", "pack", "write"])
@pytest.mark.parametrize("number", [0, 1, 5, 11])
def test_what_is_raised_anywhere_comes_out_and_leaves_whole_units_and_an_idle_crew(
    workers: int, step: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Pieces(raise_at(step, number))
    watched = written = 0
    pwritev = os.pwritev

    def watch() -> None:
        nonlocal watched
        source.at("watch", watched)
        watched += 1

    def write(*args: object) -> int:
        nonlocal written
        written += 1
        source.at("write", written - 1)
        return pwritev(*args)  # type: ignore[arg-type]

    codec = Raw(lambda number: source.at("pack", number))
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, codec, crew)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", write)
            with pytest.raises(BrokenError, match=f"{step} {number}"):
                within_seconds(lambda: packer.run(source, watch))

        assert source.busy == 0
        assert are_free(crew)
        content = assert_true(packer.end("broken"), target)
    assert WHOLE.startswith(content)
    assert len(content) % BLOCK == 0
    assert len(content) <= number * BLOCK or step == "write"


@pytest.mark.parametrize("workers", [2, 4])
def test_who_waits_for_a_piece_that_fails_is_told(workers: int) -> None:
    others = threading.Semaphore(0)

    def at(step: str, number: int) -> None:
        if (step, number) == ("fill", 0):
            for _ in range(ahead(workers) - 1):
                assert others.acquire(timeout=20)
            time.sleep(0.1)  # until they all wait for this piece
            raise BrokenError
        if step == "fill":
            others.release()

    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        with pytest.raises(BrokenError):
            within_seconds(lambda: packer.run(Pieces(at)), 10)

        assert are_free(crew)
        assert assert_true(packer.end("broken"), target) == b""


@pytest.mark.parametrize("workers", [2, 4])
def test_all_threads_may_raise_at_once(workers: int) -> None:
    meeting = threading.Barrier(workers)

    def at(step: str, number: int) -> None:
        if step == "fill":
            meeting.wait(20)
            raise BrokenError(str(number))

    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS["zstd"], crew)
        with pytest.raises(BrokenError):
            within_seconds(lambda: packer.run(Pieces(at)))

        assert are_free(crew)
        assert assert_true(packer.end("broken"), target) == b""


def test_a_codec_that_cannot_begin_ends_its_helpers_before_that_is_raised() -> None:
    main = threading.get_ident()
    helper_is_in = threading.Event()
    source = Pieces(lambda step, number: helper_is_in.set())

    class NoMemory(Raw):
        def packer(self) -> Pack:
            if threading.get_ident() == main:
                assert helper_is_in.wait(20)
                raise MemoryError
            return super().packer()

    with Crew(2) as crew, memory_file() as target:
        packer = Packer(target, NoMemory(lambda number: time.sleep(0.01)), crew)  # type: ignore[arg-type]
        with pytest.raises(MemoryError):
            packer.run(source)

        claimed = source.claimed
        assert are_free(crew)
        assert source.claimed == claimed, "a helper went on behind the caller's back"


@pytest.mark.parametrize(("pieces", "helps"), [(8, False), (9, True), (MANY, True)])
def test_only_a_small_core_is_left_to_one_thread(pieces: int, helps: bool) -> None:
    threads = set()
    together = threading.Barrier(2 if helps else 1)

    def at(step: str, number: int) -> None:
        threads.add(threading.get_ident())
        if step == "fill" and number < 2:
            together.wait(20)

    source = Pieces(at)
    source.pieces = pieces
    with Crew(2) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        within_seconds(lambda: packer.run(source))

        assert len(threads) == (2 if helps else 1)
        assert assert_true(packer.end(), target) == WHOLE
        assert are_free(crew)


def test_where_no_further_thread_can_be_had_it_is_packed_by_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def start_few(thread: threading.Thread) -> None:
        if thread.name.startswith("pack"):
            if len(started) == 1:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_few)
    with Crew(4) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        packer.run(Pieces())

        assert assert_true(packer.end(), target) == WHOLE


def test_a_packer_that_waits_for_its_source_keeps_no_other_from_ending() -> None:
    waits, go_on = threading.Event(), threading.Event()

    def at(step: str, number: int) -> None:
        if (step, number) == ("claim", 0):
            waits.set()
            assert go_on.wait(60)

    with Crew(2) as crew, memory_file() as slow, memory_file() as fast:
        idle = threading.Thread(target=Packer(slow, CODECS["gzip"], crew).run, args=(Pieces(at),))
        idle.start()
        assert waits.wait(20)
        _occupy_helper(crew, go_on)
        packer = Packer(fast, CODECS["gzip"], crew)
        try:
            within_seconds(lambda: packer.run(Pieces()), 5)
        finally:
            go_on.set()
            idle.join(20)

        assert assert_true(packer.end(), fast) == WHOLE


def _occupy_helper(crew: Crew, go_on: threading.Event) -> None:
    """Make sure that the only helper is not free, whoever of the two waits in the source."""

    def wait() -> None:
        go_on.wait(60)

    crew.helping(wait, 1)


def test_packers_that_share_a_crew_do_not_mix() -> None:
    content = [BLOCKS[number : number + 4] * 2 for number in range(4)]
    with Crew(3) as crew:

        def one(number: int, results: dict[int, bytes]) -> None:
            with memory_file() as target:
                packer = Packer(target, CODECS["lz4"], crew)
                packer.run(StreamSource.of(iter(content[number])))
                packer.end()
                results[number] = content_in(target)

        results: dict[int, bytes] = {}
        threads = [threading.Thread(target=one, args=(number, results)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert results == {number: b"".join(content[number]) for number in range(4)}


def test_the_helpers_end_with_their_crew() -> None:
    with Crew(4) as crew, memory_file() as target:
        Packer(target, CODECS["gzip"], crew).run(Pieces())
        mine = {thread for thread in threading.enumerate() if thread.name.startswith("pack")}

    assert not any(thread.is_alive() for thread in mine)


@each_codec
def test_an_ending_may_be_repeated(codec: CodecName) -> None:
    for content in b"", b"x", (NOISE * 2)[: BLOCK + 5]:
        with Crew(2) as crew, memory_file() as target:
            packer = Packer(target, CODECS[codec], crew)
            packer.run(StreamSource.of([content]))

            first, file = packer.end("why"), content_of(target)

            assert packer.end("why") == first
            assert content_of(target) == file
            assert assert_true(first, target) == content


@with_files
@given(codec=codecs, room=st.integers(1, 13 * BLOCK), workers=workers)
def test_room_is_given_up_in_whole_units_at_the_end(
    codec: CodecName, room: int, workers: int
) -> None:
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS[codec], crew)
        packer.run(Pieces())
        before = packer.packed

        facts = packer.end("for room", room=room)

        content = assert_true(facts, target)
        assert packer.packed <= max(before - room, len(CODECS[codec].zeros(0)))
    assert WHOLE.startswith(content)
    assert len(content) % BLOCK == 0
    assert len(WHOLE) - len(content) <= room + 2 * BLOCK


def test_room_may_be_given_up_after_an_ending() -> None:
    with Crew(1) as crew, memory_file() as target:
        packer = Packer(target, CODECS["zstd"], crew)
        packer.run(Pieces())
        whole = packer.end()

        facts = packer.end("for room", room=1)

        assert assert_true(facts, target) == WHOLE[:-BLOCK]
        assert facts.packed <= whole.packed - 1


def ended_for_want_of_room(packer: Packer) -> Packed:
    """End it as its users do: what stands behind the units may not fit either."""
    try:
        return packer.end("there is no room")
    except OSError:
        return packer.end("there is no room", room=1)


@each_codec
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("size", [2 * BLOCK, 10 * BLOCK + 3 * 4096])
def test_on_a_full_disk_what_was_written_whole_stays_and_is_true(
    codec: CodecName, workers: int, size: int, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size) as disk, Crew(workers) as crew:
        target = os.open(disk / "core", os.O_RDWR | os.O_CREAT)
        try:
            packer = Packer(target, CODECS[codec], crew)
            with pytest.raises(OSError, match="No space") as caught:
                within_seconds(lambda: packer.run(Pieces()))
            facts = ended_for_want_of_room(packer)

            content = assert_true(facts, target)
            smaller = packer.end("the disk is full", room=1)
            assert smaller.packed < facts.packed or not content
            assert WHOLE.startswith(assert_true(smaller, target))
        finally:
            os.close(target)
    assert caught.value.errno == errno.ENOSPC
    assert WHOLE.startswith(content)
    behind = 0 if workers == 1 else ahead(workers)  # units that were written at once with it
    assert size - (2 + behind) * BLOCK <= len(content) <= size


@pytest.mark.parametrize("workers", [1, 3])
def test_room_asked_for_on_a_full_disk_is_room_on_the_disk(workers: int, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * BLOCK) as disk, Crew(workers) as crew:
        target = os.open(disk / "core", os.O_RDWR | os.O_CREAT)
        try:
            packer = Packer(target, CODECS["gzip"], crew)
            with pytest.raises(OSError, match="No space"):
                within_seconds(lambda: packer.run(Pieces()))

            facts = packer.end("the disk is full", room=BLOCK)

            assert WHOLE.startswith(assert_true(facts, target))
            status = os.fstatvfs(target)
            assert status.f_bavail * status.f_frsize >= BLOCK
            assert facts.packed <= 2.5 * BLOCK  # three units were whole
            assert facts.size >= BLOCK or workers > 1
        finally:
            os.close(target)


@each_codec
@pytest.mark.parametrize("workers", [1, 3])
def test_a_file_that_may_not_grow_further_is_a_write_error_like_any(
    codec: CodecName, workers: int, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    target = os.open(tmp_path / "core", os.O_RDWR | os.O_CREAT)
    try:
        with Crew(workers) as crew:
            packer = Packer(target, CODECS[codec], crew)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * BLOCK + 99, limits[1]))
            with pytest.raises(OSError, match="too large"):
                packer.run(Pieces())
            facts = ended_for_want_of_room(packer)

        assert WHOLE.startswith(assert_true(facts, target))
        assert facts.size == 3 * BLOCK
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
        os.close(target)


@with_files
@given(codec=codecs, data=st.data(), core=cores)
def test_after_a_kill_the_whole_units_before_the_gap_are_taken_up(
    codec: CodecName, data: st.DataObject, core: Core
) -> None:
    file = packed(core.content, codec)
    ends = unit_ends(file, codec)
    cut = data.draw(st.integers(0, len(file)))
    gap = data.draw(st.integers(0, len(file)))
    left = bytearray(file[:cut])
    left[gap : gap + 4096] = bytes(len(left[gap : gap + 4096]))
    same = next((n for n, (a, b) in enumerate(zip(left, file, strict=False)) if a != b), cut)
    whole = [size for end, size in ends if end <= same]

    with Crew(1) as crew, memory_file(bytes(left)) as target:
        packer = Packer.resume(target, CODECS[codec], crew)
        assert packer.size == max(whole, default=0)
        if is_open(packer, target):
            packer.run(StreamSource.of([b"more", NOISE]))
            more = b"more" + NOISE
        else:
            more = b""
        facts = packer.end()

        assert assert_true(facts, target) == core.content[: max(whole, default=0)] + more


def is_open(packer: Packer, target: int) -> bool:
    """Say whether a unit may follow those of *packer*: none does behind the last of a core."""
    return not os.fstat(target).st_size or (packer.size > 0 and packer.size % BLOCK == 0)


@each_codec
@pytest.mark.parametrize("content", [b"", b"x", NOISE + b"x"], ids=len)
def test_nothing_is_packed_behind_the_last_unit_of_a_core(codec: CodecName, content: bytes) -> None:
    file = packed(content, codec)

    with Crew(2) as crew, memory_file(file) as target:
        packer = Packer.resume(target, CODECS[codec], crew)
        with pytest.raises(CorruptError, match="none of ours"):
            packer.run(StreamSource.of([b"more"]))

        assert are_free(crew)
        assert assert_true(packer.end(), target) == content
        assert content_of(target) == file


def unit_ends(file: bytes, codec: CodecName) -> list[tuple[int, int]]:
    """Give where each unit ends, in the file and in the core."""
    with memory_file(file) as descriptor:
        return [
            (unit.place + unit.packed, unit.start + unit.size)
            for unit in CODECS[codec].units(descriptor)
        ]


@each_codec
@pytest.mark.parametrize("piece", ["zeros", "ones", "noise", "text"])
def test_what_is_taken_up_is_data_where_it_is_not_zeros(codec: CodecName, piece: str) -> None:
    core = Core((piece, "hole"), "a byte")

    with Crew(1) as crew, memory_file(packed(core.content, codec)) as target:
        facts = Packer.resume(target, CODECS[codec], crew).end()

        assert assert_true(facts, target) == core.content
    assert facts.data == core.data


@each_codec
def test_an_ended_file_may_be_taken_up_and_ended_the_same(codec: CodecName) -> None:
    file = packed(NOISE + NOISE + b"x", codec)

    with Crew(1) as crew, memory_file(file) as target:
        Packer.resume(target, CODECS[codec], crew).end()

        assert content_of(target) == file


@each_codec
def test_noise_grows_by_a_thousandth_at_most(codec: CodecName) -> None:
    result = pack(StreamSource.of([NOISE * 3]), codec)

    assert len(result.file) <= 3 * BLOCK * 1.001


@each_codec
def test_the_crew_packs_the_same_file_however_many_they_are(codec: CodecName) -> None:
    core = Core(("noise", "hole", "hole", "text", "two ranges", "zeros", "noise"), "odd")

    files = set()
    for number in 1, 2, 4, 8:
        with core.file() as file:
            files.add(pack(FileSource(file), codec, number).file)

    assert len(files) == 1
