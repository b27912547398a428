"""Who may call the service where there are no certificates: whoever shows the host's secret."""

import hmac
from collections.abc import Callable
from typing import Any

import grpc

from common.passphrase import HEADER, header_of

_Continuation = Callable[[grpc.HandlerCallDetails], Any]


class Gate(grpc.ServerInterceptor):  # type: ignore[type-arg]  # only so in the stubs
    """Turns calls of *service* away that do not show *passphrase*; others pass."""

    def __init__(self, service: str, passphrase: str) -> None:
        self._prefix = f"/{service}/"
        self._expected = header_of(passphrase)[1].encode()

    def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Give the handler of a call, or one that refuses it."""
        details: Any = handler_call_details  # its type does not tell its fields
        if not details.method.startswith(self._prefix):
            return continuation(handler_call_details)
        shown = dict(details.invocation_metadata).get(HEADER, "")
        if hmac.compare_digest(str(shown).encode(), self._expected):
            return continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def _refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "without certificates, a call shows the secret in qkview.token of COREMON_RUN_DIR",
    )
