"""What a request may bring, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from spacy_relx.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests, batches and the queue.

    Attributes:
        max_body_bytes: Most bytes of a request's body.
        max_documents: Most documents of a request.
        max_chars: Most characters of a document's text.
        max_waiting: Most documents that are accepted and not yet answered; more are refused with 503.
        max_batch: Documents after which a batch waits for no more.
        max_wait_ms: Milliseconds that a batch waits for company.
        max_body_seconds: Seconds within which a request's body has to come; who is slower is refused with 408.

    Raises:
        ConfigError: If a value cannot be used.
    """

    max_body_bytes: int = 4 * 2**20
    max_documents: int = 64
    max_chars: int = 50_000
    max_waiting: int = 512
    max_batch: int = 64
    max_wait_ms: float = 5.0
    max_body_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_wait_ms", "max_body_seconds") else 1
            if not value >= least:
                raise ConfigError(f"{field.name} is {value!r}. Expected at least {least}.")
        if self.max_waiting < self.max_documents:
            raise ConfigError(
                f"max_waiting is {self.max_waiting}, which is less than max_documents ({self.max_documents}): the "
                "largest request could never be accepted. Raise the first or lower the second."
            )
