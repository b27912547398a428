"""Start corectl: as the kernel's pipe helper at once, else as the operator's command."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run corectl; the result is its exit status."""
    words = sys.argv[1:] if arguments is None else [*arguments]
    # A crashed process is held until its core is handed on: what operators need is not imported.
    if words[:1] == ["intake"] and "--help" not in words[1:2]:
        from services.corectl.intake import take_in

        return take_in(words[1:])
    from services.corectl.commandline import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
