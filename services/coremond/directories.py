"""The directories that the settings name, each with its kind."""

import errno
import fcntl

from common.errors import ConfigError
from common.kubelet import KubeletLogs
from services.coremond.apport_cores import ApportCores
from services.coremond.apport_reports import ApportReports
from services.coremond.crash_files import CrashFiles, PodFiles
from services.coremond.pod_directories import PodDirectories
from services.coremond.settings import CoremondSettings
from services.coremond.source_directories import SourceDirectories
from services.coremond.systemd_files import SystemdFiles
from services.coremond.watch import SourceDirectory


def open_directories(
    settings: CoremondSettings, kubelet: KubeletLogs | None = None
) -> SourceDirectories:
    """Open our own crash directory, which must be there, and those of others, which may come."""
    ours = SourceDirectory(
        settings.crash_dir,
        CrashFiles(settings.source_pattern),
        is_ours=True,
        sources_go=settings.delete_src,
    )
    try:
        ours.open()
        _lock(ours.descriptor)
    except OSError as error:
        ours.close()
        reason = error.strerror or error
        if isinstance(error, BlockingIOError):
            reason = "another coremond takes what comes in there"
        raise ConfigError([f"COREMON_CRASH_DIR={settings.crash_dir}: {reason}"]) from error
    foreign = (
        (settings.systemd_dir, SystemdFiles()),
        (settings.apport_reports, ApportReports()),
        (settings.apport_cores_dir, ApportCores()),
    )
    theirs = [
        SourceDirectory(path, kind, is_ours=False, sources_go=settings.delete_foreign_src)
        for path, kind in foreign
        if path
    ]
    for directory in theirs:
        directory.follow()
    pods = PodDirectories(
        ours,
        lambda pod: PodFiles(settings.source_pattern, pod),
        lambda pod: kubelet is not None and kubelet.is_over(pod),
    )
    return SourceDirectories(pods, ours, *theirs)


def _lock(directory: int) -> None:
    """Have the *directory* alone, as long as it is open; BlockingIOError where another has it.

    Two that took each core would both store it, and count it.
    """
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise
        # Such a file system knows no locks of directories.
