"""One connection of systemd-coredump's socket: datagrams with fields, then descriptors.

Each field is a datagram. Datagrams of no bytes follow, with a descriptor each: the core, and from
258 on the process's pidfd and its mounts, if the sender has them. The end of the connection looks
like one with neither.
"""

import errno
import os
import socket
import time

from services.crashagent.apport_message import ANCILLARY_SIZE, read_descriptors
from services.crashagent.pidfd import pid_of
from services.crashagent.systemd_message import FIELD_SIZE, Fields

GRACE = 1.0
"""Seconds that a sender has to end once its core is there."""
_AT_ONCE = 64
"""Datagrams that one sender is listened to before others are."""


class Connection:
    """Owns a connection and what came on it; it may be listened to until *deadline* (monotonic)."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self.deadline = deadline
        self.fields = Fields()
        self.core: int | None = None
        self.pidfd: int | None = None
        self.is_starved = False
        """Whether a descriptor waits for which there is no room."""
        self._has_ended = False
        self._patience = deadline
        """Until when more may come, once the core is there."""

    def fileno(self) -> int:
        """Give the connection's descriptor."""
        return self._socket.fileno()

    def is_overdue(self) -> bool:
        """Say whether its time is over."""
        return time.monotonic() >= self.deadline

    def is_complete(self) -> bool:
        """Say whether all is there that will come."""
        is_there = self.core is not None and time.monotonic() >= self._patience
        return self._has_ended or is_there

    def close(self) -> None:
        """Close the connection, and all that came on it."""
        self._socket.close()
        for descriptor in (self.core, self.pidfd):
            if descriptor is not None:
                os.close(descriptor)
        self.give_away()

    def give_away(self) -> None:
        """Leave the descriptors that came to somebody else."""
        self.core = self.pidfd = None

    def read(self) -> None:
        """Read what is there, and no more than others can wait for."""
        self.is_starved = False
        try:
            for _ in range(_AT_ONCE):
                if self._has_ended:
                    return
                self._read_datagram()
        except BlockingIOError:
            return
        except ConnectionError:  # told once, before what was sent can be read
            return
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            self.is_starved = True

    def _read_datagram(self) -> None:
        """Read the next one; where there is no room for its descriptor, it stays (EMFILE)."""
        nothing = bytearray(1)
        pending = self._socket.recv_into(nothing, 1, socket.MSG_PEEK | socket.MSG_TRUNC)
        message, ancillary, flags, _ = self._socket.recvmsg(
            min(pending, FIELD_SIZE), ANCILLARY_SIZE, socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
        )
        descriptors = read_descriptors(ancillary)
        if flags & socket.MSG_CTRUNC and not descriptors:
            raise OSError(errno.EMFILE, "its descriptor did not fit")
        if not pending and not descriptors:
            self._has_ended = True
            return
        if pending:
            self._take_field(message, has_descriptor=bool(descriptors))
        if descriptors:
            self._take_descriptors(descriptors)
        self._socket.recv_into(nothing, 1)  # take it away; its descriptors are here already

    def _take_field(self, message: bytes, *, has_descriptor: bool) -> None:
        if has_descriptor:
            self.fields.complain("a field with a descriptor")
        if self.core is None:
            self.fields.add(message)
        else:
            self.fields.complain("a field behind the core")

    def _take_descriptors(self, descriptors: list[int]) -> None:
        """Keep the core, which is the first of all, and a pidfd; close what else there is."""
        first, *surplus = descriptors
        if surplus:
            self.fields.complain(f"{len(descriptors)} descriptors at once")
        for descriptor in surplus:
            os.close(descriptor)
        if self.core is None:
            self.core = first
            self._patience = min(self.deadline, time.monotonic() + GRACE)
        elif self.pidfd is None and pid_of(first) >= 0:
            self.pidfd = first
        else:
            os.close(first)
