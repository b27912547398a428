"""The way to qkview-collect."""

from pathlib import Path
from typing import Any

import grpc

from common.certificates import FILES, read_certificates
from common.errors import CollectorError, ConfigError
from common.passphrase import header_of, read_passphrase
from services.corectl.settings import CorectlSettings

_MESSAGE_LIMIT = 8 * 2**20  # a record may have 4 MiB
_KEEPALIVE_MS = 30_000


class FetchError(CollectorError):
    """A core did not arrive whole. What did is in the .part file, if going on can help."""


def open_channel(
    settings: CorectlSettings, address: str | None, tls_dir: Path | None, server_name: str | None
) -> grpc.Channel:
    """Make a channel to *address* (this host's qkview-collect), with mutual TLS if we can.

    The certificates are those of *tls_dir*, where they have to be, or those of the settings,
    where they may be. *server_name* is the name that the server's certificate has to have.
    """
    certificates = read_certificates(tls_dir or settings.qkview_tls_dir)
    if tls_dir is not None and certificates is None:
        raise ConfigError([f"{tls_dir}: none of {', '.join(FILES)} is there"])
    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    target = address or f"127.0.0.1:{settings.qkview_address.rpartition(':')[2]}"
    if certificates is None:
        channel = grpc.insecure_channel(target, options)
        # The secret is this host's, and is shown to nobody else.
        if target.startswith(("127.0.0.1:", "localhost:")):
            channel = showing(channel, read_passphrase(settings.run_dir))
        return channel
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificates.authority,
        private_key=certificates.key,
        certificate_chain=certificates.chain,
    )
    return grpc.secure_channel(target, credentials, options)


def showing(channel: grpc.Channel, passphrase: str) -> grpc.Channel:
    """Give a channel that shows *passphrase* with each call."""
    return grpc.intercept_channel(channel, _Shower(passphrase))


class _Shower(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # only so in the stubs
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
):
    def __init__(self, passphrase: str) -> None:
        self._header = header_of(passphrase)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_header(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_header(details), request)

    def _with_header(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._header])


def words_of(error: grpc.RpcError) -> str:
    """Say what a failed call says of itself."""
    call: Any = error  # it is the call too, which its type does not say
    if call.code() is grpc.StatusCode.UNAVAILABLE:
        return f"qkview-collect does not answer there: {call.details()} (UNAVAILABLE)"
    return f"{call.details()} ({call.code().name})"


def is_past_the_end(error: grpc.RpcError) -> bool:
    """Say whether a call failed because more was there already than there is to fetch."""
    call: Any = error
    return bool(call.code() is grpc.StatusCode.OUT_OF_RANGE)
