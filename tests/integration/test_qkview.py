import os
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from common.naming import RECORD_SUFFIX
from common.passphrase import read_passphrase
from common.qkview_pb2 import FetchCoreRequest, GetRecordRequest, ListCoresRequest
from common.qkview_pb2_grpc import QkviewStub
from common.record import CrashRecord
from services.corectl.client import showing
from services.qkview_collect.service import CHUNK, STREAMS
from tests import loglines
from tests.bundle import BIN, wait_until
from tests.certificates import Authority
from tests.store import Store, core_of

SERVICE = "coremond.qkview.v1.Qkview"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LARGE = 24 * 2**20
"""Bytes that no buffer between the two ends takes in, so that a stream stands still."""
TIMEOUT = 60
NODE = "node-1"


PASSPHRASES: dict[str, str] = {}
"""What callers show to the servers without certificates, by their address."""


class Server:
    """Owns a qkview-collect that runs, and what it has said so far."""

    def __init__(self, home: Path, **settings: str) -> None:
        (home / "levels.yaml").write_text("default: info\n")
        env = {
            "COREMON_RUN_DIR": str(home / "run"),
            "COREMON_CORES_DIR": str(home / "cores"),
            "COREMON_LEVELS_FILE": str(home / "levels.yaml"),
            "NODE_NAME": NODE,
            "QKVIEW_ADDRESS": "127.0.0.1:0",
            "COREMON_METRICS_ADDRESS": "off",
            "QKVIEW_TLS_DIR": str(home / "tls"),
            **settings,
        }
        self.process = subprocess.Popen(
            [BIN / "qkview-collect"],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run_dir = home / "run"
        self.lines: list[dict[str, str]] = []

    @property
    def _output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def wait_for(self, text: str) -> dict[str, str]:
        for line in self._output:
            self.lines.append(loglines.parse(line.rstrip("\n")))
            if self.lines[-1]["m"] == text:
                return self.lines[-1]
        raise AssertionError(f"no {text!r} in {self.lines}")

    def address(self) -> str:
        address = self.wait_for("grpc server is starting up")["address"]
        PASSPHRASES[address] = read_passphrase(self.run_dir)
        return address

    def end(self) -> int:
        """Ask it to stop, and take the rest of its lines."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        self.lines += [loglines.parse(line.rstrip("\n")) for line in self._output]
        self._output.close()
        return self.process.wait(TIMEOUT)


@contextmanager
def running(home: Path, **settings: str) -> Iterator[Server]:
    server = Server(home, **settings)
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.process.kill()
            server.wait()


def mistakes(home: Path, **settings: str) -> list[str]:
    """Start a server that has to refuse, and give its reasons."""
    with running(home, **settings) as server:
        code = server.wait()
    assert code == os.EX_CONFIG
    return [line["reason"] for line in server.lines if line["m"] == "bad setting"]


@contextmanager
def channel_to(address: str, tls: Path | None = None) -> Iterator[grpc.Channel]:
    if tls is None:
        channel = showing(grpc.insecure_channel(address), PASSPHRASES.get(address, ""))
    else:
        own = [
            (tls / name).read_bytes() for name in ("tls.key", "tls.crt") if (tls / name).exists()
        ]
        authority = (tls / "ca.crt").read_bytes()
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, *own))
    with channel:
        yield channel


def stub_of(channel: grpc.Channel) -> Any:
    return QkviewStub(channel)  # type: ignore[no-untyped-call]


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


def fetch(stub: Any, wanted: str, offset: int = 0) -> tuple[Any, bytes]:
    """Fetch a core; give its head, and the bytes that followed."""
    request = FetchCoreRequest(id=wanted, offset=offset)
    head, *rest = stub.FetchCore(request, timeout=TIMEOUT)
    assert head.WhichOneof("part") == "head"
    assert all(chunk.WhichOneof("part") == "data" for chunk in rest)
    return head.head, b"".join(chunk.data for chunk in rest)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qkview")


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "cores" / NODE)


@pytest.fixture(scope="module")
def large(store: Store) -> CrashRecord:
    return store.add(core_of(LARGE), process="large", crashed_at=10**18 + 1)


@pytest.fixture(scope="module")
def held(store: Store) -> CrashRecord:
    return store.add(
        process="held", state="held", reason="3 cores are kept already", crashed_at=10**18 + 2
    )


@pytest.fixture(scope="module")
def channel(home: Path, large: CrashRecord, held: CrashRecord) -> Iterator[grpc.Channel]:
    with running(home) as server, channel_to(server.address()) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return stub_of(channel)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


# What it says and how it starts


def test_with_certificates_one_line_says_that_it_starts(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue(tmp_path / "tls", "qkview")

    with running(tmp_path) as server:
        address = server.address()
        assert server.end() == os.EX_OK

    [line] = server.lines
    assert list(line) == ["ts", "l", "m", "lt", "proc", "address", "ct", "v"]
    assert (line["l"], line["proc"]) == ("info", "qkd")
    assert address.startswith("127.0.0.1:")
    assert not address.endswith(":0")


def test_without_certificates_it_warns_and_serves_this_host_only(tmp_path: Path) -> None:
    with running(tmp_path, QKVIEW_ADDRESS="0.0.0.0:0") as server:
        address = server.address()
        port = int(address.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), TIMEOUT)

    assert address.startswith("127.0.0.1:")
    warning, start = server.lines
    assert warning["l"] == "warning"
    assert "tls.crt" in warning["reason"]
    assert "without TLS" in warning["effect"]
    assert list(start) == ["ts", "l", "m", "lt", "proc", "address", "ct", "v"]


def test_a_set_of_certificates_that_is_not_whole_is_never_served_without(
    tmp_path: Path, authority: Authority
) -> None:
    tls = authority.issue(tmp_path / "tls", "qkview")
    (tls / "ca.crt").unlink()

    [reason] = mistakes(tmp_path)

    assert f"{tls / 'ca.crt'}: missing" in reason


def test_a_key_with_a_password_is_refused_without_asking_for_it(
    tmp_path: Path, authority: Authority
) -> None:
    tls = authority.issue(tmp_path / "tls", "qkview")
    command: list[str | Path] = [
        "openssl",
        "ec",
        "-aes128",
        "-passout",
        "pass:secret",
        "-in",
        tls / "tls.key",
    ]
    locked = subprocess.run(command, check=True, capture_output=True).stdout
    (tls / "tls.key").write_bytes(locked)

    [reason] = mistakes(tmp_path)

    assert "tls.crt and tls.key are no pair" in reason


def test_a_port_in_use_is_told_plainly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        reasons = mistakes(tmp_path, QKVIEW_ADDRESS=address)

    assert reasons == [f"QKVIEW_ADDRESS='{address}': Address already in use"]


def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        reasons = mistakes(tmp_path, QKVIEW_ADDRESS=first.address())

    assert len(reasons) == 1


def test_an_address_of_another_host_is_told_plainly(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", "qkview")

    [reason] = mistakes(tmp_path, QKVIEW_ADDRESS="192.0.2.1:0")

    assert reason == "QKVIEW_ADDRESS='192.0.2.1:0': Cannot assign requested address"


# Who is served


def test_a_client_with_a_certificate_of_ours_is_served(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue(tmp_path / "tls", "qkview")
    record = Store(tmp_path / "cores" / NODE).add()

    with running(tmp_path) as server:
        client = authority.issue(tmp_path / "client", "operator")
        with channel_to(server.address(), client) as channel:
            head, _ = fetch(stub_of(channel), record.id)
        told = server.wait_for("core handed out")

    assert head.name == record.core
    assert (told["core"], told["client"]) == (record.core, "operator")


def test_a_client_without_or_with_a_strange_certificate_is_refused(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue(tmp_path / "tls", "qkview")
    strange = Authority(tmp_path / "strange").issue(tmp_path / "forged", "operator")
    for name in ("bare", "forged"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "ca.crt").write_bytes((tmp_path / "tls" / "ca.crt").read_bytes())

    with running(tmp_path) as server:
        address = server.address()
        for tls in (None, tmp_path / "bare", strange):
            with channel_to(address, tls) as channel:
                stub = stub_of(channel)
                call = stub.ListCores(ListCoresRequest(), timeout=TIMEOUT)
                assert code_of(partial(list, call)) is grpc.StatusCode.UNAVAILABLE
        client = authority.issue(tmp_path / "client", "operator")
        with channel_to(address, client) as channel:
            assert list(stub_of(channel).ListCores(ListCoresRequest(), timeout=TIMEOUT)) == []


def test_a_client_refuses_a_server_that_is_not_ours(tmp_path: Path, authority: Authority) -> None:
    Authority(tmp_path / "strange").issue(tmp_path / "tls", "qkview")
    client = authority.issue(tmp_path / "client", "operator")

    with running(tmp_path) as server, channel_to(server.address(), client) as channel:
        stub = stub_of(channel)
        code = code_of(lambda: list(stub.ListCores(ListCoresRequest(), timeout=TIMEOUT)))

    assert code is grpc.StatusCode.UNAVAILABLE


def test_renewed_certificates_serve_the_next_client(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", "qkview")
    renewed = Authority(tmp_path / "renewed")

    with running(tmp_path) as server:
        address = server.address()
        renewed.issue(tmp_path / "tls", "qkview")
        client = renewed.issue(tmp_path / "client", "operator")
        with channel_to(address, client) as channel:
            assert list(stub_of(channel).ListCores(ListCoresRequest(), timeout=TIMEOUT)) == []


# What is handed out


def test_crashes_are_listed_oldest_first(stub: Any, large: CrashRecord, held: CrashRecord) -> None:
    listed = list(stub.ListCores(ListCoresRequest(), timeout=TIMEOUT))

    assert [summary.id for summary in listed] == [large.id, held.id]
    assert (listed[0].packed, listed[0].sha256) == (large.packed, large.sha256)
    assert listed[1].state == "held"


def test_a_list_can_be_asked_for_less(stub: Any, large: CrashRecord, held: CrashRecord) -> None:
    for request, wanted in (
        (ListCoresRequest(process="large"), large),
        (ListCoresRequest(limit=1), held),
        (ListCoresRequest(until=large.crashed_at), large),
        (ListCoresRequest(since=held.crashed_at), held),
    ):
        assert [s.id for s in stub.ListCores(request, timeout=TIMEOUT)] == [wanted.id]
    assert list(stub.ListCores(ListCoresRequest(pod="another"), timeout=TIMEOUT)) == []


def test_a_record_is_given_whole(stub: Any, store: Store, large: CrashRecord) -> None:
    reply = stub.GetRecord(GetRecordRequest(id=large.id), timeout=TIMEOUT)

    assert reply.json == store.path(large, RECORD_SUFFIX).read_bytes()


def test_a_core_arrives_as_it_was_stored(stub: Any, store: Store, large: CrashRecord) -> None:
    head, data = fetch(stub, large.id)

    assert data == store.path(large).read_bytes()
    assert (head.name, head.size) == (large.core, len(data))
    assert head.crc32 == large.crc32 == f"{zlib.crc32(data):08x}"
    assert head.sha256 == large.sha256


def test_a_core_comes_in_small_messages(stub: Any, large: CrashRecord) -> None:
    sizes = [
        len(chunk.data)
        for chunk in stub.FetchCore(FetchCoreRequest(id=large.id), timeout=TIMEOUT)
        if chunk.WhichOneof("part") == "data"
    ]

    assert max(sizes) == CHUNK
    assert sum(sizes) == large.packed


@pytest.mark.parametrize("missing", [0, 1, CHUNK, CHUNK + 1])
def test_a_fetch_goes_on_where_the_last_one_ended(
    stub: Any, store: Store, large: CrashRecord, missing: int
) -> None:
    offset = large.packed - missing

    head, data = fetch(stub, large.id, offset)

    assert head.size == large.packed
    assert data == store.path(large).read_bytes()[offset:]


@pytest.mark.parametrize("offset", [-1, 2**62, None])
def test_an_offset_outside_the_core_is_refused(
    stub: Any, large: CrashRecord, offset: int | None
) -> None:
    asked = large.packed + 1 if offset is None else offset

    assert code_of(lambda: fetch(stub, large.id, asked)) is grpc.StatusCode.OUT_OF_RANGE


def test_a_core_that_is_not_kept_is_refused_with_the_reason(stub: Any, held: CrashRecord) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        fetch(stub, held.id)

    call: Any = caught.value
    assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert call.details() == "the core was never stored: 3 cores are kept already"


def test_an_unknown_id_is_not_found(stub: Any) -> None:
    assert code_of(lambda: fetch(stub, "0" * 12)) is grpc.StatusCode.NOT_FOUND
    record = GetRecordRequest(id="0" * 12)
    assert code_of(lambda: stub.GetRecord(record, timeout=TIMEOUT)) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "hostile",
    ["", "../../etc/passwd", "/etc/passwd", "\0", "0123456789a\0", "core.a.gz", "*", "0" * 60_000],
)
def test_a_hostile_id_is_no_id(stub: Any, hostile: str) -> None:
    for call in (
        lambda: stub.GetRecord(GetRecordRequest(id=hostile), timeout=TIMEOUT),
        lambda: fetch(stub, hostile),
    ):
        assert code_of(call) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_of_a_megabyte_is_not_even_read(stub: Any, large: CrashRecord) -> None:
    huge = GetRecordRequest(id="0" * 2**20)

    code = code_of(lambda: stub.GetRecord(huge, timeout=TIMEOUT))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.GetRecord(GetRecordRequest(id=large.id), timeout=TIMEOUT).json


def test_a_file_that_is_not_what_was_stored_is_not_handed_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "cores" / NODE)
    gone, linked, grown, broken = (store.add(pid=pid) for pid in range(1, 5))
    store.path(gone).unlink()
    store.path(linked).unlink()
    store.path(linked).symlink_to("/etc/passwd")
    with store.path(grown).open("ab") as file:
        file.write(b"more")
    store.path(broken, RECORD_SUFFIX).write_text("{")

    with running(tmp_path) as server, channel_to(server.address()) as channel:
        stub = stub_of(channel)
        codes = [code_of(partial(fetch, stub, r.id)) for r in (gone, linked, grown, broken)]
        listed = list(stub.ListCores(ListCoresRequest(), timeout=TIMEOUT))
        server.end()

    assert codes == [
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.INTERNAL,
    ]
    assert [summary.id for summary in listed] == [gone.id, linked.id, grown.id]
    assert {"a symbolic link"} < {line.get("reason", "") for line in server.lines}


def test_a_node_without_cores_lists_none(tmp_path: Path) -> None:
    with running(tmp_path) as server, channel_to(server.address()) as channel:
        assert list(stub_of(channel).ListCores(ListCoresRequest(), timeout=TIMEOUT)) == []


# Clients that go, stand still, or come in numbers


def test_streams_that_are_left_give_their_places_back(stub: Any, large: CrashRecord) -> None:
    def begin() -> Any:
        call = stub.FetchCore(FetchCoreRequest(id=large.id), timeout=TIMEOUT)
        try:
            next(call)
        except grpc.RpcError:
            return None  # the place of the one before is not free yet
        return call

    for _ in range(3 * STREAMS):
        call = wait_until(begin, "a place among the streams", patience=TIMEOUT)
        call.cancel()
        assert code_of(partial(list, call)) is grpc.StatusCode.CANCELLED


def test_streams_that_stand_still_hold_up_nobody_else(
    tmp_path: Path, store: Store, large: CrashRecord
) -> None:
    cores = str(store.directory.parent)
    with running(tmp_path, COREMON_CORES_DIR=cores) as server, ExitStack() as stack:
        channel = stack.enter_context(channel_to(server.address()))
        stub = stub_of(channel)
        for _ in range(STREAMS):
            call = stub.FetchCore(FetchCoreRequest(id=large.id), timeout=TIMEOUT)
            stack.callback(call.cancel)
            next(call)

        code = code_of(lambda: fetch(stub, large.id))
        checker = health_pb2_grpc.HealthStub(channel)
        state = checker.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status
        record = stub.GetRecord(GetRecordRequest(id=large.id), timeout=TIMEOUT)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert state == SERVING
    assert record.json


def test_it_ends_in_the_middle_of_a_stream_and_tells_who_watches(
    tmp_path: Path, store: Store, large: CrashRecord
) -> None:
    cores = str(store.directory.parent)
    with (
        running(tmp_path, COREMON_CORES_DIR=cores) as server,
        channel_to(server.address()) as channel,
    ):
        stream = stub_of(channel).FetchCore(FetchCoreRequest(id=large.id), timeout=TIMEOUT)
        next(stream)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE), timeout=TIMEOUT
        )
        states = [next(watch).status]
        server.process.send_signal(signal.SIGTERM)
        states.append(next(watch).status)
        code = server.wait()
        ending = code_of(lambda: list(stream))

    assert states == [SERVING, NOT_SERVING]
    assert code == os.EX_OK
    assert ending in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert not [line for line in server.lines if line["l"] in {"error", "critical"}]


# The standard services


def test_health_is_told_by_the_standard_service(channel: grpc.Channel) -> None:
    checker = health_pb2_grpc.HealthStub(channel)

    for name in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=name)
        assert checker.Check(request, timeout=TIMEOUT).status == SERVING
    unknown = health_pb2.HealthCheckRequest(service="unknown")
    assert code_of(lambda: checker.Check(unknown, timeout=TIMEOUT)) is grpc.StatusCode.NOT_FOUND


def test_what_is_served_is_told_by_reflection(channel: grpc.Channel) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    [answer] = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT)

    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_a_crash_never_needs_grpc() -> None:
    code = (
        "import sys, services.crashagent.__main__, services.coremond.__main__;"
        "sys.exit('grpc' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _all(call: Callable[..., Iterator[object]], request: object) -> list[object]:
    return list(call(request, timeout=TIMEOUT))


def test_without_certificates_a_user_who_cannot_read_the_run_directory_gets_nothing(
    home: Path,
) -> None:
    with running(home) as server:
        address = server.address()
        mode = (server.run_dir / "qkview.token").stat().st_mode & 0o777
        for passphrase in ("", "0" * 64, PASSPHRASES[address][:-1]):
            with showing(grpc.insecure_channel(address), passphrase) as channel:
                stub = stub_of(channel)
                calls = [
                    partial(_all, stub.ListCores, ListCoresRequest()),
                    partial(stub.GetRecord, GetRecordRequest(id="0" * 12), timeout=TIMEOUT),
                    partial(_all, stub.FetchCore, FetchCoreRequest(id="0" * 12)),
                ]

                codes = {code_of(call) for call in calls}
                health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

                assert codes == {grpc.StatusCode.UNAUTHENTICATED}
                assert health.status == SERVING
    assert mode == 0o600
