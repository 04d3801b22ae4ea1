"""What the service takes, and of whom."""

from __future__ import annotations

from dataclasses import dataclass, field

_MESSAGE = 16 << 20


@dataclass(frozen=True)
class Settings:
    """Settings of the service; those of the runtime are `errseg_rt.options.Options`.

    Attributes:
        names: Names, or names and ports (`host:port`), by which its users call it, beside `localhost` and addresses.
        token: What a client has to show as a bearer token; None: nothing.
        max_bytes: Largest body of a request.
        max_clients: Most streams, and requests whose body is there, at a time.
        queue: Most requests that wait to be computed, beside those that are.
        body_seconds: Time within which the body of a request must be there.
        idle_seconds: Time after which a stream ends whose client sends nothing, or does not say what it has shown.
        grace: Seconds from the wish to end until the end.
    """

    names: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    max_bytes: int = 32 << 20
    max_clients: int = 64
    queue: int = 16
    body_seconds: float = 30.0
    idle_seconds: float = 60.0
    grace: float = 10.0

    @property
    def max_message(self) -> int:
        """Largest message of a WebSocket: each of many clients may have three of them here."""
        return min(self.max_bytes, _MESSAGE)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that nobody could use; it begins with their name."""
        for name, least in (("max_bytes", 1), ("max_clients", 1), ("queue", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("body_seconds", "idle_seconds", "grace"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.token is not None and (len(self.token) < 8 or not (self.token.isascii() and self.token.isprintable())):
            raise ValueError("token must be of at least 8 printable ASCII characters")
