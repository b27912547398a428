"""What `corectl intake` does without crashagent: leave the core in the crash directory.

The file is written without a name and gets one when it is whole and synced, as cores of the file
pattern have it; coremond finds it by that. What came of a core that breaks off is kept likewise.
"""

import errno
import os
import socket
import time
from contextlib import suppress

from common.disk import DiskLimits, read_disk_limits
from common.files import create, exists
from common.naming import INTAKE_PREFIX, SourceName
from common.packing.sparse import write_data
from common.settings import EnvReader
from services.corectl.intake_words import Facts

_BLOCK = 2**20
_SPACE_CHECK_EVERY = 64 * _BLOCK
_MODE = 0o1777


def keep(facts: Facts, settings: dict[str, str], source: int = 0) -> str:
    """Write the core that comes from *source* into the crash directory; give its name there."""
    name = _name_of(facts)
    limits = read_disk_limits(EnvReader(settings))
    directory = _open_directory(settings["COREMON_CRASH_DIR"])
    descriptor, temporary = _open_unnamed(directory)
    try:
        _copy(source, descriptor, limits)
        with suppress(
            OSError
        ):  # a core with a wrong owner, or not on the disk yet, is better than none
            _give_to_user(descriptor, facts)
            os.fsync(descriptor)
        published = _publish(directory, descriptor, temporary, name)
        os.fsync(directory)
    finally:
        os.close(descriptor)
    _tell(directory, published)
    os.close(directory)
    return published


def _give_to_user(descriptor: int, facts: Facts) -> None:
    """Let the user have his own core, but not that of a setuid program: as the kernel does."""
    if facts.get("dumpable") == 1 and "uid" in facts and "gid" in facts:
        os.fchown(descriptor, int(facts["uid"]), int(facts["gid"]))


def _tell(directory: int, name: str) -> None:
    """Have coremond's watch see the file: nothing tells it of a name that was linked."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):  # else it is found when the directory is looked through
        os.close(os.open(name, flags, dir_fd=directory))


def _open_directory(path: str) -> int:
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, _MODE)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_unnamed(directory: int) -> tuple[int, str]:
    """Open a new file of no name, or of a hidden one where the file system cannot do that."""
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        return os.open(".", flags, 0o600, dir_fd=directory), ""
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    temporary = f"{INTAKE_PREFIX}{time.time_ns():019d}.{os.getpid()}"
    return create(directory, temporary), temporary


def _copy(source: int, target: int, limits: DiskLimits) -> None:
    """Copy a core, its zero pages as holes, as far as it comes and the disk may be filled."""
    place = written = 0
    checked = -_SPACE_CHECK_EVERY
    buffer = memoryview(bytearray(_BLOCK))
    try:
        while size := _fill(source, buffer):
            written += write_data(target, buffer[:size], place)
            place += size
            if 0 < limits.max_core <= written or 0 < limits.max_size <= place:
                break
            if written - checked >= _SPACE_CHECK_EVERY:
                checked = written
                if limits.lacking(target) > 0:
                    break
    except OSError:
        if not place:
            raise  # else what came is worth keeping; its own headers say that it is not whole
    os.ftruncate(target, place)


def _fill(source: int, buffer: memoryview) -> int:
    """Read until *buffer* is full or the core ends, so that pages of zeros are seen whole."""
    size = 0
    while size < len(buffer) and (got := os.readv(source, [buffer[size:]])):
        size += got
    return size


def _publish(directory: int, descriptor: int, temporary: str, name: SourceName) -> str:
    """Give the whole file its name, or one of a later nanosecond where that is taken."""
    moment = name.crashed_at
    while True:
        text = str(
            SourceName(process=name.process, pid=name.pid, host=name.host, crashed_at=moment)
        )
        moment += 1
        if temporary and exists(directory, text):
            continue
        try:
            if temporary:
                os.rename(temporary, text, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                os.link(f"/proc/self/fd/{descriptor}", text, dst_dir_fd=directory)
        except FileExistsError:
            continue
        return text


def _name_of(facts: Facts) -> SourceName:
    return SourceName(
        process=_comm(facts),
        pid=int(facts.get("pid") or facts.get("host_pid") or 0),
        host=str(facts.get("hostname") or socket.gethostname()),
        crashed_at=int(facts.get("crashed_at") or time.time_ns()),
    )


def _comm(facts: Facts) -> str:
    """Give the program's name; the process is there for as long as its core is not read."""
    try:
        with open(f"/proc/{facts.get('host_pid', 0)}/comm", "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))
    except OSError:
        return os.path.basename(str(facts.get("exe", ""))) or "unknown"
