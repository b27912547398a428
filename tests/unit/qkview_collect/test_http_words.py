from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.qkview_collect.http_words import (
    HEAD_LIMIT,
    LINE_LIMIT,
    RefusedError,
    Request,
    read_request,
)


def test_a_whole_request_is_read_wherever_it_was_cut() -> None:
    text = b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"

    assert read_request(text) == Request("GET", "/metrics")
    assert all(read_request(text[:place]) is None for place in range(len(text)))


def test_a_request_of_an_older_version_with_plain_newlines_is_read() -> None:
    assert read_request(b"HEAD /healthz HTTP/1.0\n\n") == Request("HEAD", "/healthz")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/2\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        (b"GET /\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / metrics HTTP/1.1\r\n", HTTPStatus.BAD_REQUEST),
        (b"\x16\x03\x01\x00\n", HTTPStatus.BAD_REQUEST),
        (b"\r\n", HTTPStatus.BAD_REQUEST),
        (b"G\xff / HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"x" * (LINE_LIMIT + 1), HTTPStatus.REQUEST_URI_TOO_LONG),
        (b"GET /" + b"x" * LINE_LIMIT + b" HTTP/1.1\r\n", HTTPStatus.REQUEST_URI_TOO_LONG),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_LIMIT, 431),
    ],
)
def test_what_is_no_request_or_too_long_is_refused(text: bytes, status: HTTPStatus) -> None:
    with pytest.raises(RefusedError) as refused:
        read_request(text)

    assert refused.value.status == status


@given(st.binary(max_size=4096))
def test_whatever_is_received_is_a_request_or_refused_or_waited_for(text: bytes) -> None:
    try:
        request = read_request(b"GET /" + text)
    except RefusedError:
        return
    assert request is None or request.method == "GET"
