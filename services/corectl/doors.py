"""The sockets that the programs listen at, and how each is looked at."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from services.corectl.health import Door
from services.corectl.knock import knock_tcp, knock_unix, look_unix
from services.corectl.settings import CorectlSettings


def doors_of(settings: CorectlSettings, timeout: float) -> list[tuple[Door, Callable[[], str]]]:
    """Give each socket that is set, and how it is looked at."""
    doors: list[tuple[Door, Callable[[], str]]] = []
    for program, path in (
        ("coremond", settings.run_dir / "items.sock"),
        ("coremond", settings.run_dir / "events.sock"),
        ("crashagent", settings.apport_socket),
    ):
        door = Door(program=program, address=str(path), is_held=program == "crashagent")
        doors.append((door, partial(_knock, partial(knock_unix, path, timeout))))
    # Whoever connects to these is taken for a crash.
    for path in filter(None, (settings.kernel_socket, settings.systemd_socket)):
        door = Door(program="crashagent", address=str(path), is_held=True)
        doors.append((door, partial(_look, path, settings.apport_socket, timeout)))
    address = settings.qkview_address
    if not address.endswith(":0"):  # with port 0, only qkview-collect's log says where it is
        door = Door(program="qkview-collect", address=address)
        doors.append((door, partial(_knock, partial(knock_tcp, address, timeout))))
    return doors


def _knock(knock: Callable[[], None]) -> str:
    knock()
    return "answers"


def _look(path: Path, beside: Path, timeout: float) -> str:
    return "listens" if look_unix(path, beside, timeout) else "cannot be seen from here"
