"""What is answered over HTTP: the metrics, and whether the bundle lives and is ready."""

from collections.abc import Callable, Sequence
from http import HTTPStatus

from services.qkview_collect.exposition import CONTENT_TYPE, render
from services.qkview_collect.http_words import RefusedError, Request, read_request, response
from services.qkview_collect.overview import View

METHODS = ("GET", "HEAD")
PATHS = ("/metrics", "/healthz", "/readyz")


class Pages:
    """Answers requests out of what *look* sees."""

    def __init__(self, look: Callable[[], View]) -> None:
        self._look = look

    def answer(self, received: bytes) -> bytes | None:
        """Give the response to what was *received*; None where more has to come."""
        try:
            request = read_request(received)
        except RefusedError as error:
            return response(error.status, f"{error.status.phrase}\n")
        return None if request is None else self._page(request)

    def _page(self, request: Request) -> bytes:
        with_body = request.method != "HEAD"
        if request.path not in PATHS:
            text = "".join(f"{path}\n" for path in PATHS)
            return response(HTTPStatus.NOT_FOUND, text, with_body=with_body)
        if request.method not in METHODS:
            status = HTTPStatus.METHOD_NOT_ALLOWED
            return response(status, f"{status.phrase}\n", allow=", ".join(METHODS))
        view = self._look()
        if request.path == "/metrics":
            return response(
                HTTPStatus.OK,
                render(view.families),
                content_type=CONTENT_TYPE,
                with_body=with_body,
            )
        faults = view.dead if request.path == "/healthz" else view.faults
        status = HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK
        return response(status, _lines(faults), with_body=with_body)


def _lines(faults: Sequence[str]) -> str:
    # A path of the settings may have newlines in it, and a fault is one line.
    return "".join(" ".join(fault.splitlines()) + "\n" for fault in faults) or "ok\n"
