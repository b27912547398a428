"""What qkview-collect measures of its own."""

from common.metrics import Registry

CALLS = ("ListCores", "GetRecord", "FetchCore")


class Measures:
    """Owns qkview-collect's instruments."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self._calls = registry.counter(
            "fetch_calls_total",
            "Calls of those who may call.",
            ("call",),
            known=[(call,) for call in CALLS],
        )
        self._cores = registry.counter(
            "fetch_cores_total",
            "Cores that were handed out, whole (from where the client had got to) or broken off.",
            ("outcome",),
            known=[("whole",), ("broken-off",)],
        )
        self._bytes = registry.counter("fetch_bytes_total", "Bytes of cores handed out.")

    def called(self, call: str) -> None:
        """Count a call."""
        self._calls.add(call)

    def handed_out(self, size: int) -> None:
        """Count *size* bytes of a core."""
        self._bytes.add(amount=size)

    def ended(self, *, is_whole: bool) -> None:
        """Count a core that was handed out to its end, or not."""
        self._cores.add("whole" if is_whole else "broken-off")
