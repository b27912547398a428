import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.acknowledgement import ACKNOWLEDGEMENT_VERSION, MOST_AT_ONCE, Acknowledgement
from common.errors import MessageError

ID = "0123456789ab"


def test_what_is_sent_is_what_is_read() -> None:
    sent = Acknowledgement(ids=(ID, "ba9876543210"))

    assert Acknowledgement.from_wire(sent.to_wire()) == sent


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [ACKNOWLEDGEMENT_VERSION],
        [b"ack/2", b'{"ids":["0123456789ab"]}'],
        [ACKNOWLEDGEMENT_VERSION, b"{}"],
        [ACKNOWLEDGEMENT_VERSION, b'{"ids":[]}'],
        [ACKNOWLEDGEMENT_VERSION, b'{"ids":["../../etc/pw"]}'],
        [ACKNOWLEDGEMENT_VERSION, b'{"ids":["0123456789ab\\n"]}'],
        [ACKNOWLEDGEMENT_VERSION, b'{"ids":["0123456789AB"]}'],
        [ACKNOWLEDGEMENT_VERSION, b'{"ids":["0123456789ab"]}', b""],
        [ACKNOWLEDGEMENT_VERSION, b"[" * 10000],
        [ACKNOWLEDGEMENT_VERSION, b" " * 10**6],
        Acknowledgement(ids=(ID,) * (MOST_AT_ONCE + 1)).to_wire(),
    ],
)
def test_what_is_malformed_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        Acknowledgement.from_wire(frames)


@given(st.lists(st.binary(), max_size=3))
def test_no_message_makes_anything_but_an_error_of_ours(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        Acknowledgement.from_wire([ACKNOWLEDGEMENT_VERSION, *frames])
