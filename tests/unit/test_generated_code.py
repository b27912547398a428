import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = ("qkview_pb2.py", "qkview_pb2.pyi", "qkview_pb2_grpc.py")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    outs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, "common/qkview.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    return out / "common"


@pytest.mark.parametrize("name", STUBS)
def test_the_committed_code_is_what_the_protocol_generates(generated: Path, name: str) -> None:
    assert (ROOT / "common" / name).read_text() == (generated / name).read_text()
