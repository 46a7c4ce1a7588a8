"""A service on loopback: the application under uvicorn in a thread, and an engine that waits when it is told to."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from tiny import LABELS, ScriptedEngine, pipeline, scripted

from spacy_relx.serving import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.language import Language

    from spacy_relx.serving.limits import Limits

TEXT = "Steve Jobs founded Apple."
PATIENCE = 60.0  # seconds; nothing waits so long unless it hangs


class Gate:
    """A script for `ScriptedEngine` whose answers come once the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, head: str, tail: str) -> Any:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        return {"founded_by": 0.9, "works_for": 0.8}


def scripted_pipeline(tokenizer: Any, script: Any) -> tuple[Language, ScriptedEngine]:
    nlp = pipeline(labels=LABELS, no_relation="no_relation", threshold=0.5)
    return nlp, scripted(nlp, ScriptedEngine(tokenizer, script))


class Service:
    """A running service."""

    def __init__(self, server: uvicorn.Server, thread: threading.Thread) -> None:
        self.server, self.thread = server, thread
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def post(self, *documents: Any) -> httpx.Response:
        given = [{"text": each} if isinstance(each, str) else each for each in documents]
        return self.client.post("/relations", json={"documents": given})

    def metric(self, name: str) -> float:
        """The value of one line of the metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rsplit(" ", 1)[1])

    def wait_for(self, n_waiting: int) -> None:
        """Wait until so many documents wait."""
        until = time.monotonic() + PATIENCE
        while (found := self.client.get("/health").json()["waiting_documents"]) != n_waiting:
            assert time.monotonic() < until, f"{found} documents are waiting, not {n_waiting}"
            time.sleep(0.01)


@contextmanager
def serving(nlp: Language, limits: Limits | None = None, **options: Any) -> Iterator[Service]:
    """Serve a pipeline at a free port of this machine."""
    config = uvicorn.Config(create_app(nlp, limits, **options), port=0, log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + PATIENCE
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    service = Service(server, thread)
    try:
        yield service
    finally:
        service.client.close()
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
