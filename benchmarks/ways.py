"""The ways to put one pipeline to work on the same documents: one process, a service under clients, Ray actors.

A way has `run`, which returns seconds without any start, and then `relations`: what the last run found.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import spacy
import torch
import uvicorn
from spacy.tokens import DocBin

from spacy_relx.benchmark.component import to_docs
from spacy_relx.benchmark.documents import made_up
from spacy_relx.serving import create_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_relx.serving.limits import Limits

FACTORY = "llama_relation_extractor"

#: Label and score, by the document's number and the characters where head and tail begin and end.
Relations: TypeAlias = dict[tuple[int, ...], tuple[str, float]]

#: Seconds after which an actor no longer waits for the others.
_PATIENCE = 300


def make_pipeline(settings: dict[str, Any]) -> Language:
    """A pipeline that takes entities as they are given; nothing is loaded."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe(FACTORY, config=settings)
    return nlp


def warm_up(nlp: Language) -> None:
    """Load the model and answer a document that is in no measurement."""
    nlp.get_pipe(FACTORY).load()
    for doc in to_docs(made_up(1, seed=-1), nlp.vocab):
        nlp(doc)


class OneProcess:
    """`nlp.pipe` and nothing else.

    Args:
        nlp: The pipeline.
        docs: The documents, with entities.
    """

    def __init__(self, nlp: Language, docs: Sequence[Doc]) -> None:
        self.nlp, self.docs = nlp, docs
        self.relations: Relations = {}

    def run(self) -> float:
        """Annotate copies of the documents."""
        copies = [doc.copy() for doc in self.docs]
        start = time.perf_counter()
        answered = list(self.nlp.pipe(copies))
        seconds = time.perf_counter() - start
        self.relations = _by_place([relation.to_dict() for relation in doc._.relations] for doc in answered)
        return seconds


class Clients:
    """So many clients of a service; each posts a document, waits for the answer, and posts the next.

    Args:
        url: Where the service takes documents.
        docs: The documents, with entities.
        n_clients: Clients at a time.

    Attributes:
        latencies: Seconds of every request so far.
    """

    def __init__(self, url: str, docs: Sequence[Doc], n_clients: int) -> None:
        self.url, self.n_clients = url, n_clients
        self.bodies = [{"documents": [_document(doc)]} for doc in docs]
        self.latencies: list[float] = []
        self.relations: Relations = {}

    def run(self) -> float:
        """Post every document once."""
        with (
            httpx.Client(timeout=600, limits=httpx.Limits(max_connections=self.n_clients)) as client,
            ThreadPoolExecutor(self.n_clients) as pool,
        ):
            start = time.perf_counter()
            answered = list(pool.map(partial(self._post, client), self.bodies))
            seconds = time.perf_counter() - start
        self.relations = _by_place(answered)
        return seconds

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        response = client.post(self.url, json=body).raise_for_status()
        self.latencies.append(time.perf_counter() - start)
        (answer,) = response.json()["documents"]
        if answer["error"]:
            raise RuntimeError(answer["error"])
        relations: list[dict[str, Any]] = answer["relations"]
        return relations


@contextmanager
def service(nlp: Language, limits: Limits) -> Iterator[str]:
    """Serve a pipeline on loopback, in threads of this process; give the address that takes documents."""
    config = uvicorn.Config(create_app(nlp, limits), port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The service has not started.")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/relations"
    finally:
        server.should_exit = True
        thread.join()


class RayActors:
    """Actors of a Ray cluster on this machine, by way of `annotate_on_ray`; a cluster has to be connected.

    The clock starts when every actor has its model and has answered a document, and stops when the last block is
    written.

    Args:
        settings: Of the component.
        docs: The documents, with entities.
        n_actors: Actors.
        n_threads: Threads of torch in each.
        block_size: Documents of a block.

    Attributes:
        start_seconds: From the call of each run until every actor was ready.
    """

    def __init__(
        self, settings: dict[str, Any], docs: Sequence[Doc], *, n_actors: int, n_threads: int, block_size: int
    ) -> None:
        self.settings, self.docs = settings, docs
        self.n_actors, self.n_threads, self.block_size = n_actors, n_threads, block_size
        self.start_seconds: list[float] = []
        self.relations: Relations = {}

    def run(self) -> float:
        """Annotate the documents from a DocBin into a folder."""
        from spacy_relx.distributed.ray_data import annotate_on_ray

        with tempfile.TemporaryDirectory() as folder:
            source, output, gate = Path(folder, "in.spacy"), Path(folder, "out"), Path(folder, "gate")
            gate.mkdir()
            DocBin(docs=self.docs, store_user_data=True).to_disk(source)
            written: list[float] = []
            called = time.time()
            annotate_on_ray(
                partial(_pipeline_of_an_actor, self.settings, self.n_threads, gate, self.n_actors, os.getpid()),
                source,
                output,
                n_actors=self.n_actors,
                # The threads of an actor are set in it; less than they are, so that actors fit however many there are.
                cpus_per_actor=min(1.0, (os.cpu_count() or 1) / self.n_actors),
                block_size=self.block_size,
                progress=lambda n_done, n_failed: written.append(time.time()),
            )
            ready = max(path.stat().st_mtime for path in gate.iterdir())
            lines = b"".join(path.read_bytes() for path in sorted(output.glob("part-*.jsonl"))).splitlines()
        self.start_seconds.append(ready - called)
        self.relations = _by_place(json.loads(line)["relations"] for line in lines)
        return written[-1] - ready


def _pipeline_of_an_actor(settings: dict[str, Any], n_threads: int, gate: Path, n_actors: int, caller: int) -> Language:
    """A pipeline that is handed over once every actor has one that is warm."""
    nlp = make_pipeline(settings)
    if os.getpid() != caller:  # which only wants to know what the pipeline is
        torch.set_num_threads(n_threads)
        warm_up(nlp)
        (gate / str(os.getpid())).touch()
        deadline = time.monotonic() + _PATIENCE
        while len(list(gate.iterdir())) < n_actors:
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {_PATIENCE} seconds there are fewer than {n_actors} actors.")
            time.sleep(0.005)
    return nlp


def _document(doc: Doc) -> dict[str, Any]:
    entities = [{"start_char": e.start_char, "end_char": e.end_char, "label": e.label_} for e in doc.ents]
    return {"text": doc.text, "entities": entities}


def _by_place(found: Iterable[list[dict[str, Any]]]) -> Relations:
    return {
        (i, *(relation[side][key] for side in ("head", "tail") for key in ("start_char", "end_char"))): (
            relation["label"],
            relation["score"],
        )
        for i, relations in enumerate(found)
        for relation in relations
    }
