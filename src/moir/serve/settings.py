"""What an operator may decide about a server."""

from dataclasses import dataclass

from moir.base.errors import InvalidValueError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""

MEGAPIXEL = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Limits and policy of a server.

    Attributes:
        max_bytes: Largest upload, bytes.
        max_pixels: Largest picture, pixels, by what its header declares.
        timeout: Seconds from the arrival of a picture to its answer; also the limit for the upload itself.
        queue: Requests with a picture that are admitted at once, waiting or running; more are answered 429.
        batch: Most pictures of one size that go through the network together.
        linger: Seconds that a lone picture waits for others of its size; 0: it never waits. While pictures run, others
            gather anyway.
        memory_pixels: Pixels of decoded pictures kept at once. Further pictures wait as the files they came in. One
            picture is always let through.
        token: Bearer token that ``/v1`` and ``/metrics`` ask for; None: they are open.
        cors: Origins whose pages may use the server from a browser; ``*``: all. Empty: none but its own page.
        hosts: Host names that the server answers to; empty: to any. A server on a loopback address should name them, or
            web pages elsewhere can reach it through a name that they point at it.

    Raises:
        InvalidValueError: A limit that lets nothing through.

    Examples:
        >>> Settings(queue=8).batch
        8
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50 * MEGAPIXEL
    timeout: float = 300.0
    queue: int = 256
    batch: int = 8
    linger: float = 0.0
    memory_pixels: int = 50 * MEGAPIXEL
    token: str | None = None
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue", "batch", "memory_pixels"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} {getattr(self, name)!r} lets nothing through; give at least 1")
        if not self.timeout > 0 or not 0 <= self.linger < self.timeout:
            raise InvalidValueError(
                f"timeout {self.timeout!r} must be more than 0 seconds, and linger {self.linger!r} from 0 to below it"
            )
        if self.token is not None and not (self.token.strip() and self.token.isascii()):
            raise InvalidValueError("the token is empty or not ASCII; give a long random word, or none to have no lock")
