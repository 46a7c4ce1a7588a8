"""The served application under load: latency and throughput, beside the same requests one at a time and no service.

    python benchmarks/serving.py --clients 1 4 16 --documents 200 --out benchmarks/results/serving.json

Every client posts a document, waits for the answer, and posts the next, over real HTTP on loopback. One client is "one
request at a time". `in_process` is `nlp.pipe` over the same documents, entities given, in one process and no HTTP.
Service and clients share this machine, so on few cores the clients cost the service something.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import results
import spacy
import torch
import uvicorn

from spacy_relx.benchmark.component import to_docs
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.serving import create_app
from spacy_relx.serving.limits import Limits
from spacy_relx.shim import engine_shim

if TYPE_CHECKING:
    from spacy.language import Language

FACTORY = "llama_relation_extractor"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON."""
    args = _arguments(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    model = {"@architectures": "spacy-relx.CausalLM.v1", "base": args.base, "dtype": args.dtype, "device": args.device}
    extractor = nlp.add_pipe(FACTORY, config={"model": model})
    extractor.load()
    docs = to_docs(made_up(args.documents, seed=args.seed), nlp.vocab)
    n_pairs = sum(len(extractor.candidate_pairs(doc)) for doc in docs)
    bodies = [{"documents": [_document(doc)]} for doc in docs]
    measured = {"in_process": _in_process(nlp, docs, n_pairs)}
    limits = Limits(max_wait_ms=args.max_wait, max_waiting=max(512, *args.clients))
    config = uvicorn.Config(create_app(nlp, limits), port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/relations"
    try:
        for n_clients in args.clients:
            measured[f"{n_clients}_clients"] = _load(url, bodies, n_clients, n_pairs)
    finally:
        server.should_exit = True
        thread.join()
    loaded = engine_shim(extractor.model).engine.loaded
    results.write(
        args.out,
        {
            **provenance(),
            "model": model_facts(loaded),
            "documents": len(docs),
            "pairs": n_pairs,
            "max_wait_ms": args.max_wait,
            "measured": measured,
        },
    )


def _document(doc: spacy.tokens.Doc) -> dict[str, Any]:
    entities = [{"start_char": e.start_char, "end_char": e.end_char, "label": e.label_} for e in doc.ents]
    return {"text": doc.text, "entities": entities}


def _in_process(nlp: Language, docs: list[spacy.tokens.Doc], n_pairs: int) -> dict[str, float]:
    start = time.perf_counter()
    for _ in nlp.pipe([doc.copy() for doc in docs]):
        pass
    return _rates(len(docs), n_pairs, time.perf_counter() - start)


def _load(url: str, bodies: list[dict[str, Any]], n_clients: int, n_pairs: int) -> dict[str, float]:
    """Post every body once, by so many clients at a time."""
    client = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=n_clients))

    def post(body: dict[str, Any]) -> float:
        start = time.perf_counter()
        client.post(url, json=body).raise_for_status()
        return time.perf_counter() - start

    with client, ThreadPoolExecutor(n_clients) as pool:
        start = time.perf_counter()
        latencies = list(pool.map(post, bodies))
        seconds = time.perf_counter() - start
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    milliseconds = {"p50_ms": round(1000 * cuts[49], 1), "p95_ms": round(1000 * cuts[94], 1)}
    return {**milliseconds, **_rates(len(bodies), n_pairs, seconds)}


def _rates(n_documents: int, n_pairs: int, seconds: float) -> dict[str, float]:
    return {
        "documents_per_second": round(n_documents / seconds, 2),
        "pairs_per_second": round(n_pairs / seconds, 2),
    }


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="clients at a time, one run each")
    parser.add_argument("--documents", type=int, default=200, help="made-up documents of two to five entities")
    parser.add_argument("--max-wait", type=float, default=5.0, help="milliseconds that a batch waits for company")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
