"""A folder that a bundle can live in: python -m tests.workspace FOLDER [NAME=value…].

It is made with an env file for `coremond-bundle --env` and `corectl --env`.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from common.settings import SOCKET_PATH_LIMIT
from tests.bundle import ROOT

ENV_FILE = "coremond.env"


def make(folder: Path, **settings: str) -> Path:
    """Make *folder*, and give the path of its env file. What is in it already stays."""
    folder = folder.absolute()
    for name in ("crash", "cores", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "crash").chmod(0o1777)  # processes of any user leave their cores there
    levels = folder / "logs" / ".minlevel.yaml"
    if not levels.exists():
        shutil.copy(ROOT / "conf" / "minlevel.yaml", levels)
    run_dir = folder / "run"
    if len(str(run_dir / "supervisor.sock")) > SOCKET_PATH_LIMIT:
        mark = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        run_dir = Path(tempfile.gettempdir()) / f"coremond-{os.getuid()}-{mark}"
        print(f"{folder} has too long a path for sockets, which are in {run_dir} instead")
    lines = {
        "COREMON_RUN_DIR": run_dir,
        "COREMON_CRASH_DIR": folder / "crash",
        "COREMON_CORES_DIR": folder / "cores",
        "COREMON_LEVELS_FILE": levels,
        "CRASHAGENT_APPORT_SOCKET": run_dir / "apport.socket",
        "QKVIEW_TLS_DIR": folder / "tls",
        **settings,
    }
    env_file = folder / ENV_FILE
    env_file.write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
    return env_file


def read(env_file: Path) -> dict[str, str]:
    """Read the settings of an env file that `make` wrote."""
    pairs = (line.partition("=") for line in env_file.read_text().splitlines())
    return {name: value.strip("'") for name, _, value in pairs}


if __name__ == "__main__":
    make(Path(sys.argv[1]), **dict(word.split("=", 1) for word in sys.argv[2:]))
