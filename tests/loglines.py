"""Read the log lines back, as strictly as they are meant to be written."""

import re

_FIELD = re.compile(r'"((?:[^"\\]|\\.)*)"="((?:[^"\\]|\\.)*)"(\||$)')
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def parse(line: str) -> dict[str, str]:
    """Give the fields of *line* in their order, or raise ValueError."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(line):
        match = _FIELD.match(line, position)
        if not match or match[1] in fields:
            raise ValueError(f"no log line, from {line[position:]!r} on")
        fields[match[1]] = unescape(match[2])
        position = match.end()
    if not fields:
        raise ValueError("an empty line")
    return fields


def unescape(value: str) -> str:
    """Undo the escaping of a value."""
    return _ESCAPE.sub(lambda m: _NAMED[m[1]] if len(m[1]) == 1 else chr(int(m[1][1:], 16)), value)


def is_ours(line: str) -> bool:
    """Say whether *line* is a program's, not supervisord's."""
    return line.startswith('"')
