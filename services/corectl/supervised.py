"""What supervisord says of the programs it keeps."""

import http.client
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from xml.parsers.expat import ExpatError

from common.errors import CollectorError


class SupervisorError(CollectorError):
    """supervisord answered, but not what was asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One supervised program."""

    name: str
    state: str
    pid: int = 0
    seconds: float = 0.0
    """How long it has been in this state, as far as it was started at all."""
    reason: str = ""
    """Why it could not be started."""
    has_ended: bool = False
    """It ran before, and ended."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> Self:
        """Read what supervisord's getAllProcessInfo tells of one."""
        return cls(
            name=str(info["name"]),
            state=str(info["statename"]),
            pid=int(info["pid"]),
            seconds=float(info["now"] - (info["start"] if info["pid"] else info["stop"])),
            reason=str(info["spawnerr"]),
            has_ended=bool(info["stop"]),
        )


def ask_supervisor(socket: Path) -> list[Program]:
    """Ask supervisord, which listens on *socket*, for all its programs.

    An OSError means that it cannot be reached.
    """
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{socket}")
    try:
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        answer: Any = server.supervisor.getAllProcessInfo()
        return [Program.of(info) for info in answer]
    except (xmlrpc.client.Error, http.client.HTTPException, ExpatError) as error:
        raise SupervisorError(f"supervisord answered {error!r}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SupervisorError(f"supervisord told of its programs in another way: {error!r}") from (
            error
        )
    finally:
        transport.close()
