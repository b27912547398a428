"""An operator's word that he knows of crashes, on its way to coremond."""

from dataclasses import dataclass
from typing import Annotated, Self

import msgspec

from common.errors import MessageError
from common.item import MESSAGE_LIMIT, to_json

ACKNOWLEDGEMENT_VERSION = b"ack/1"
MOST_AT_ONCE = 100
"""Records in one message: each is written anew, and crashes wait meanwhile."""

_Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}\\Z")]
_Ids = Annotated[tuple[_Id, ...], msgspec.Meta(min_length=1, max_length=MOST_AT_ONCE)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledgement:
    """The ids of the records that are meant."""

    ids: _Ids

    def to_wire(self) -> list[bytes]:
        """Write it as the two frames of a message: version, JSON."""
        return [ACKNOWLEDGEMENT_VERSION, to_json(self)]

    @classmethod
    def from_wire(cls, frames: list[bytes]) -> Self:
        """Read what `to_wire` wrote, or raise `MessageError` saying what differs."""
        match frames:
            case [version, body] if version == ACKNOWLEDGEMENT_VERSION:
                pass
            case _:
                raise MessageError(f"expected {ACKNOWLEDGEMENT_VERSION!r} and a body")
        if len(body) > MESSAGE_LIMIT:
            raise MessageError(f"a body of {len(body)} bytes; at most {MESSAGE_LIMIT} are read")
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"unreadable body: {error}") from error
