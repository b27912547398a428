"""Whether the bundle calls itself ready."""

import http.client
from dataclasses import dataclass

from common.errors import CollectorError

_LIMIT = 64 * 1024
_ANYWHERE = {"", "0.0.0.0", "[::]", "*"}  # noqa: S104  # read, not bound


class ReadinessError(CollectorError):
    """Somebody answered, but not what was asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """What /readyz says."""

    address: str
    faults: tuple[str, ...] = ()
    """Each in a line; empty where all is ready."""
    state: str = ""
    """What supervisord says of qkview-collect, where that lets doubt whose the answer is."""


def ask_readiness(address: str, timeout: float) -> Readiness:
    """Ask the server that is bound to *address* on this host; an OSError where nobody answers."""
    host, _, port = address.rpartition(":")
    where = "127.0.0.1" if host in _ANYWHERE else host.strip("[]")
    connection = http.client.HTTPConnection(where, int(port), timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(_LIMIT).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise ReadinessError(f"what answers is not qkview-collect: {error!r}") from error
    finally:
        connection.close()
    if answer.status not in {200, 503}:
        raise ReadinessError(f"what answers is not qkview-collect: HTTP status {answer.status}")
    is_ready = answer.status == 200
    return Readiness(address=address, faults=() if is_ready else tuple(text.splitlines()))
