"""What coremond can be told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from common.disk import DiskLimits, read_disk_limits
from common.effort import Effort, read_effort
from common.item import CodecName
from common.packing.registry import read_codec
from common.places import Places, read_places
from common.settings import EnvReader, boolean, count, duration, names, path, path_or_off, size
from services.coremond.file_pattern import FilePattern


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How many cores are kept, and for how long. Seconds and bytes; 0 is off."""

    cores_max_files: int = 3
    """COREMON_CORES_MAX_FILES: so many cores of one process are kept before the limit is reached;
    0 = no limit."""

    retention_interval: float = 300.0
    """COREMON_RETENTION_INTERVAL: once the limit is reached, further cores of that process are
    ignored for this long, counted from the core that reached it."""

    rotate: bool = False
    """COREMON_ROTATE: after that interval, true: each new core replaces the oldest of that
    process; false: new cores are added, and a new window of COREMON_CORES_MAX_FILES begins."""

    retention: float = 0.0
    """COREMON_RETENTION: cores older than this are deleted, sources too; 0 = off."""

    deny: tuple[str, ...] = ()
    """COREMON_DENY: processes of which no core is kept: names, with `*` and `?`, and commas between
    them; their crashes are counted."""

    record_retention: float = 90 * 86400.0
    """COREMON_RECORD_RETENTION: records of crashes whose core is not there (any more) are deleted
    when they are older than this, and where there are too many; 0 = for their number alone."""

    max_use: int = 0
    """COREMON_MAX_USE: so many bytes of cores, and of logs beside them, are kept; who has
    most gives the oldest first; 0 = off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoremondSettings(Places):
    """The settings, as they stand in the environment."""

    keep: Retention = field(default_factory=Retention)

    disk: DiskLimits = field(default_factory=DiskLimits)

    delete_src: bool = True
    """COREMON_DELETE_SRC: delete a source once its stored core is durable and verified; false: a
    source is converted exactly once, and stays."""

    source_pattern: FilePattern = field(default_factory=FilePattern)
    """COREMON_SOURCE_PATTERN: what the kernel calls cores in the crash directory: the last part of
    its core_pattern."""

    systemd_dir: Path | None = None
    """COREMON_SYSTEMD_DIR: where systemd-coredump stores cores, which are taken from there too, as
    in `/var/lib/systemd/coredump`; `off`: they are not."""

    apport_reports: Path | None = None
    """COREMON_APPORT_REPORTS: where Apport writes its reports (`*.crash`), whose cores are taken
    too, as in `/var/crash`, which may be the crash directory; `off`: they are not."""

    apport_cores_dir: Path | None = None
    """COREMON_APPORT_CORES_DIR: where Apport writes the cores that users ask for by ulimit, as in
    `/var/lib/apport/coredump`; `off`: they are not taken."""

    delete_foreign_src: bool = False
    """COREMON_DELETE_FOREIGN_SRC: as COREMON_DELETE_SRC, for those three directories, which belong
    to others, who delete what is in them themselves."""

    cores_interval: float = 300.0
    """COREMON_CORES_INTERVAL: how often stored cores are looked through for what is too old."""

    scan_interval: float = 10.0
    """COREMON_SCAN_INTERVAL: how often the source directories are looked through for what no
    event told of (network file systems have none)."""

    codec: CodecName = "gzip"
    """COREMON_CODEC: how cores are stored: `gzip`, `zstd` or `lz4`."""

    effort: Effort = field(default_factory=Effort)

    metrics_workloads: int = 100
    """COREMON_METRICS_WORKLOADS: so many workloads have their own number of crashes among the
    metrics; all others are counted together."""

    kubernetes: Path | Literal["auto", "off"] = "auto"
    """COREMON_KUBERNETES: `auto`: the Kubernetes API tells of the pods of this node where this runs
    in a pod with an account; a path: that kubeconfig says how it is reached; `off`: it is not
    asked."""

    list_pods: bool = True
    """COREMON_LIST_PODS: the pods of this node are listed and watched, where the Kubernetes API is
    asked."""

    events: bool = True
    """COREMON_EVENTS: a crash becomes an Event on its pod, where the Kubernetes API is asked."""

    pod_labels: tuple[str, ...] = ()
    """COREMON_POD_LABELS: labels of the pod that its crashes' records have: names, with `*` and
    `?`, and commas between them."""

    pod_annotations: tuple[str, ...] = ()
    """COREMON_POD_ANNOTATIONS: the same of annotations."""

    log_lines: int = 500
    """COREMON_LOG_LINES: so many of the last lines of the container's log are kept beside the core;
    0 = none."""

    log_size: int = 2**20
    """COREMON_LOG_SIZE: at most so many bytes of them."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from *env*, or raise `ConfigError` with every mistake."""
        reader, default, keep = EnvReader(env), cls(), Retention()
        settings = cls(
            **read_places(reader),
            keep=Retention(
                cores_max_files=reader.read("COREMON_CORES_MAX_FILES", count, keep.cores_max_files),
                retention_interval=reader.read(
                    "COREMON_RETENTION_INTERVAL", duration, keep.retention_interval
                ),
                rotate=reader.read("COREMON_ROTATE", boolean, keep.rotate),
                retention=reader.read("COREMON_RETENTION", duration, keep.retention),
                deny=reader.read("COREMON_DENY", names, keep.deny),
                record_retention=reader.read(
                    "COREMON_RECORD_RETENTION", duration, keep.record_retention
                ),
                max_use=reader.read("COREMON_MAX_USE", size, keep.max_use),
            ),
            disk=read_disk_limits(reader),
            delete_src=reader.read("COREMON_DELETE_SRC", boolean, default.delete_src),
            source_pattern=reader.read(
                "COREMON_SOURCE_PATTERN", FilePattern.parse, default.source_pattern
            ),
            systemd_dir=reader.read("COREMON_SYSTEMD_DIR", path_or_off, default.systemd_dir),
            apport_reports=reader.read(
                "COREMON_APPORT_REPORTS", path_or_off, default.apport_reports
            ),
            apport_cores_dir=reader.read(
                "COREMON_APPORT_CORES_DIR", path_or_off, default.apport_cores_dir
            ),
            delete_foreign_src=reader.read(
                "COREMON_DELETE_FOREIGN_SRC", boolean, default.delete_foreign_src
            ),
            cores_interval=reader.read("COREMON_CORES_INTERVAL", duration, default.cores_interval),
            scan_interval=reader.read("COREMON_SCAN_INTERVAL", duration, default.scan_interval),
            codec=read_codec(reader),
            effort=read_effort(reader),
            log_lines=reader.read("COREMON_LOG_LINES", count, default.log_lines),
            log_size=reader.read("COREMON_LOG_SIZE", size, default.log_size),
            kubernetes=reader.read("COREMON_KUBERNETES", _cluster, default.kubernetes),
            list_pods=reader.read("COREMON_LIST_PODS", boolean, default.list_pods),
            events=reader.read("COREMON_EVENTS", boolean, default.events),
            pod_labels=reader.read("COREMON_POD_LABELS", names, default.pod_labels),
            pod_annotations=reader.read("COREMON_POD_ANNOTATIONS", names, default.pod_annotations),
            metrics_workloads=reader.read(
                "COREMON_METRICS_WORKLOADS", count, default.metrics_workloads
            ),
        )
        reader.require(settings.cores_interval > 0, "COREMON_CORES_INTERVAL: expected more than 0")
        reader.require(settings.scan_interval > 0, "COREMON_SCAN_INTERVAL: expected more than 0")
        for name, other in (
            ("COREMON_CORES_DIR", settings.cores_dir),
            ("COREMON_CORES_DIR", settings.store_dir),
            ("COREMON_SYSTEMD_DIR", settings.systemd_dir),
            ("COREMON_APPORT_CORES_DIR", settings.apport_cores_dir),
        ):
            reader.require(
                other != settings.crash_dir,
                f"{name}={str(other)!r}: expected another directory than COREMON_CRASH_DIR",
            )
        reader.finish()
        return settings


def _cluster(text: str) -> Path | Literal["auto", "off"]:
    match text:
        case "auto" | "off":
            return text
        case _ if text.startswith("/"):
            return path(text)
        case _:
            raise ValueError("expected auto, off, or the absolute path of a kubeconfig")
