"""Every error the programs raise on purpose."""

from collections.abc import Sequence


class CollectorError(Exception):
    """The base of the family: catch it at the edge of a unit of work."""


class ConfigError(CollectorError):
    """The settings need a person; starting again will not help. Nothing has been touched."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("settings to correct: " + "; ".join(self.problems))


class MessageError(CollectorError):
    """A message, or a file that holds one, is not what it should be. Nothing was done with it."""


class NamingError(CollectorError):
    """A file name does not follow the naming of cores. The file is as it was."""


class SourceError(CollectorError):
    """A source is not a file to be read as a core. It stays where it is, unopened."""


class BusyError(CollectorError):
    """A source is still being written. It is looked at again later."""


class SpaceError(CollectorError):
    """The disk has no room for a core, and none can be made. Nothing half-written is left."""


class StoppedError(CollectorError):
    """The program was asked to stop in the middle. The source is whole; the next start goes on."""


class CorruptError(CollectorError):
    """A stored core is not what was written. Nothing was removed because of it."""


class TruncatedError(CollectorError):
    """No more of a core is to be had. What came before stays, and is marked."""
