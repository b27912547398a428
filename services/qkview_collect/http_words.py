"""The little HTTP that metrics need: one request of a connection, and its response."""

import time
from dataclasses import dataclass
from http import HTTPStatus

LINE_LIMIT = 2048
"""Bytes of the first line."""
HEAD_LIMIT = 16 * 1024
"""Bytes of the whole head of a request."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    method: str
    path: str


class RefusedError(Exception):
    """A request is none, or is too long; *status* says which."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def read_request(received: bytes) -> Request | None:
    """Read a request, or None while its head is not whole; raises `RefusedError`."""
    line, newline, _ = received.partition(b"\n")
    if len(line) > LINE_LIMIT:
        raise RefusedError(HTTPStatus.REQUEST_URI_TOO_LONG)
    if not newline:
        return None
    words = line.removesuffix(b"\r").split(b" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith(b"HTTP/"):
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    if not words[2].startswith(b"HTTP/1."):
        raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if not (b"\r\n\r\n" in received or b"\n\n" in received):
        if len(received) > HEAD_LIMIT:
            raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return None
    method, target = words[0].decode("ascii", "replace"), words[1].decode("ascii", "replace")
    return Request(method, target.partition("?")[0])


def response(
    status: HTTPStatus,
    body: str,
    *,
    content_type: str = "text/plain; charset=utf-8",
    with_body: bool = True,
    allow: str = "",
) -> bytes:
    """Write a response, after which the connection is closed."""
    content = body.encode("utf-8", "backslashreplace")
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *([f"Allow: {allow}"] if allow else []),
    ]
    head = "".join(f"{line}\r\n" for line in lines).encode("ascii")
    return head + b"\r\n" + (content if with_body else b"")
