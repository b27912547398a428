"""The gRPC server around the service: where it listens, on how many threads, and how it ends."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.errors import ConfigError
from common.qkview_pb2 import DESCRIPTOR
from common.qkview_pb2_grpc import QkviewServicer, add_QkviewServicer_to_server
from services.qkview_collect.gate import Gate
from services.qkview_collect.service import STREAMS

SERVICE = DESCRIPTOR.services_by_name["Qkview"].full_name
LOOPBACK = "127.0.0.1"

_THREADS = STREAMS + 2
_CALLS = 64  # at once, waiting ones included
_GRACE = 1.0  # seconds that calls under way have to end in
_REQUEST_LIMIT = 64 * 1024

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # or two servers would share the port, each with half the calls
    ("grpc.max_receive_message_length", _REQUEST_LIMIT),
    ("grpc.keepalive_time_ms", 60_000),  # so that a client that vanished gives its thread back
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


def on_loopback(address: str) -> str:
    """Give *address* with the host that nobody outside can reach."""
    return f"{LOOPBACK}:{address.rpartition(':')[2]}"


@contextmanager
def running_server(
    service: QkviewServicer,
    address: str,
    credentials: grpc.ServerCredentials | None,
    passphrase: str = "",
) -> Iterator[str]:
    """Serve *service* on *address* for as long as the block runs; give where it is bound.

    Without *credentials*, a caller has to show the *passphrase*.

    Raises `ConfigError` where the address cannot be had.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"),
        options=_OPTIONS,
        maximum_concurrent_rpcs=_CALLS,
        interceptors=[] if credentials else [Gate(SERVICE, passphrase)],
    )
    add_QkviewServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    states = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    reflection.enable_server_reflection(
        (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    port = _bind(server, address, credentials)
    states.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        # To those who watch, everything is NOT_SERVING. A watcher that goes away just now can lock
        # this call up for ever, so it is not waited for.
        telling = Thread(target=states.enter_graceful_shutdown, daemon=True)
        telling.start()
        telling.join(_GRACE)
        server.stop(_GRACE).wait(_GRACE + 1)


def _bind(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError([f"QKVIEW_ADDRESS={address!r}: {_why_not(address)}"]) from error


def _why_not(address: str) -> str:
    """Find out why *address* cannot be bound, which gRPC does not say."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "gRPC could not bind it"
