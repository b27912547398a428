"""Values as an operator reads them; nothing hostile reaches a terminal unescaped."""

import re
import signal
import sys

from common.item import to_json
from common.log import escape, text_of

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def safe(value: object) -> str:
    """Show *value* on one line, with every control character escaped."""
    return escape(text_of(value))


def show_size(size: int) -> str:
    """Write a number of bytes with the unit that suits it."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in _UNITS:
        amount /= 1024
        if amount < 1024 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def show_signal(number: int | None) -> str:
    """Name a signal, as far as it has a name."""
    if number is None:
        return "-"
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def show_number(number: int | None) -> str:
    """Write a number, or a dash where nobody knows it."""
    return "-" if number is None else str(number)


def json_of(value: object) -> str:
    """Write *value* as JSON of one line that is safe to look at in a terminal."""
    return tame_json(to_json(value).decode())


def tame_json(text: str) -> str:
    r"""Write what is not printable in JSON *text* as ``\uXXXX``, which means the same there."""
    if text.replace("\n", "").isprintable():
        return text
    return re.sub(r"[^\n -~]", _unicode_escape, text)


def _unicode_escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def say(text: str) -> None:
    """Tell the operator something that is not the answer itself."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Tell the operator what went wrong."""
    say(f"corectl: {text}")
