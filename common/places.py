"""Where things are and what the node is called: the settings that every program shares."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.settings import SOCKET_PATH_LIMIT, EnvReader, directory_name, path, path_or_off


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The directories of the bundle."""

    run_dir: Path = Path("/run/coremond")
    """COREMON_RUN_DIR: the sockets between the programs; made with mode 0700."""

    crash_dir: Path = Path("/var/crash")
    """COREMON_CRASH_DIR: where cores arrive, from the kernel and from crashagent."""

    cores_dir: Path = Path("/var/cores")
    """COREMON_CORES_DIR: where stored cores live, in a directory for each node."""

    levels_file: Path = Path("/logs/.minlevel.yaml")
    """COREMON_LEVELS_FILE: how much each program logs; read again whenever it changes."""

    node: str = field(default_factory=socket.gethostname)
    """NODE_NAME: the node's name, and its directory's in the cores directory."""

    kubelet_logs: Path | None = Path("/var/log")
    """COREMON_KUBELET_LOGS: the directory of `pods` and `containers`, which the kubelet writes the
    containers' logs to; it tells which pod a crash is of; `off`: it is not looked at."""

    @property
    def store_dir(self) -> Path:
        """This node's directory of stored cores."""
        return self.cores_dir / self.node


def read_places(reader: EnvReader) -> dict[str, Any]:
    """Read the shared settings, as keyword arguments for a program's own."""
    default = Places()
    places = {
        "run_dir": reader.read("COREMON_RUN_DIR", path, default.run_dir),
        "crash_dir": reader.read("COREMON_CRASH_DIR", path, default.crash_dir),
        "cores_dir": reader.read("COREMON_CORES_DIR", path, default.cores_dir),
        "levels_file": reader.read("COREMON_LEVELS_FILE", path, default.levels_file),
        "node": reader.read("NODE_NAME", directory_name, default.node),
        "kubelet_logs": reader.read("COREMON_KUBELET_LOGS", path_or_off, default.kubelet_logs),
    }
    longest = f"{places['run_dir']}/supervisor.sock"
    reader.require(
        len(os.fsencode(longest)) <= SOCKET_PATH_LIMIT,
        f"COREMON_RUN_DIR={str(places['run_dir'])!r}: expected a shorter path, for the sockets in "
        f"it may have {SOCKET_PATH_LIMIT} bytes at most",
    )
    return places
