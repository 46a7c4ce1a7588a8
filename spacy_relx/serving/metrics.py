"""What Prometheus reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spacy_relx.engine.types import Work
    from spacy_relx.serving.asgi import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds; a batch on a processor takes tenths of one.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DOCUMENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_METHODS = frozenset({"GET", "HEAD", "POST"})


class Metrics:
    """The service's counters, in a registry of their own.

    Args:
        work: Gives the engine's counters, or None while there is no engine.
        n_waiting: Gives the documents that are accepted and not yet answered.
    """

    def __init__(self, work: Callable[[], Work | None], n_waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "relx_http_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "relx_http_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self.documents = Counter("relx_documents", "Documents by outcome.", ["outcome"], registry=self._registry)
        self.relations = Counter("relx_relations", "Relations found.", registry=self._registry)
        self.batch_documents = Histogram(
            "relx_batch_documents", "Documents of a batch.", buckets=_DOCUMENTS, registry=self._registry
        )
        self.batch_seconds = Histogram(
            "relx_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=self._registry
        )
        waiting = Gauge("relx_waiting_documents", "Documents accepted and not yet answered.", registry=self._registry)
        waiting.set_function(n_waiting)
        self._registry.register(_WorkCollector(work))

    def text(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self._registry)

    def batch(self, n_documents: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_documents.observe(n_documents)
        self.batch_seconds.observe(seconds)

    def answered(self, rows: list[dict[str, Any]]) -> None:
        """Count the answered documents of a request."""
        n_failed = sum(row["error"] is not None for row in rows)
        self.documents.labels("failed").inc(n_failed)
        self.documents.labels("ok").inc(len(rows) - n_failed)
        self.relations.inc(sum(len(row["relations"]) for row in rows))


class _WorkCollector:
    """The engine's counters as they are."""

    def __init__(self, work: Callable[[], Work | None]) -> None:
        self._work = work

    def collect(self) -> Iterator[CounterMetricFamily]:
        work = self._work()
        for name, help_text, attribute in (
            ("relx_pairs", "Pairs that the model was asked about.", "n_prompts"),
            ("relx_cached_pairs", "Pairs whose answer was known.", "n_cached"),
            ("relx_prompt_tokens", "Tokens in the pairs' prompts.", "n_prompt_tokens"),
            ("relx_computed_tokens", "Tokens that went through the model.", "n_tokens"),
        ):
            yield CounterMetricFamily(name, help_text, value=getattr(work, attribute, 0))


class Measured:
    """Counts and times the requests of an application.

    Args:
        app: The application.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            # Only what is known is a label: whoever makes up paths or methods shall not fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
