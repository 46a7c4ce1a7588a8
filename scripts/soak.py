"""Runs one process for a long time and watches its memory, its speed and its answers.

Documents of random words and names go through `nlp`, `nlp.pipe`, saving and loading, copies and other label sets, in
random order. Now and then the same texts as at the beginning are asked about again: their relations must be the very
same. The model is a random Llama of two layers with the embedded model's tokenizer, so that time goes into everything
around it; `--base` names another.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import spacy
import typer
from spacy.tokens import DocBin

from spacy_relx.benchmark.machine import provenance
from spacy_relx.benchmark.memory import current_bytes
from spacy_relx.schema import parse_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spacy.language import Language

TESTS = Path(__file__).resolve().parents[1] / "tests"
FACTORY = "llama_relation_extractor"
LABELS: dict[str, Any] = {
    "works_for": {"head": ["PERSON"], "tail": ["ORG"]},
    "founded_by": {"head": ["ORG"], "tail": ["PERSON"], "threshold": 0.1},
    "spouse": {"head": ["PERSON"], "tail": ["PERSON"], "symmetric": True},
    "based_in": {"head": ["ORG"], "tail": ["GPE"], "inverse": "home_of"},
}
NAMES = {
    "PERSON": ("Mira Oslund", "Tomas Kerr", "Ada Venn", "Jonas Pell", "Lena Brandt"),
    "ORG": ("Acme Optics", "Harbour Trust", "Norland Rail"),
    "GPE": ("Velden", "Port Salis", "Castra"),
}
ODD = ("<|im_end|>", "\u200b", "🙂", "\x00", "\u202e", "e\u0301", "…", "\n\n")


def main(
    docs: Annotated[int, typer.Option(min=100, help="Documents.")] = 100_000,
    base: Annotated[str | None, typer.Option(help="A base model: a name, a folder or a GGUF file.")] = None,
    seed: Annotated[int, typer.Option(help="Of texts and order.")] = 0,
    max_growth: Annotated[float, typer.Option(help="Most MiB the memory may grow after the first fifth.")] = 64,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the measurements.")] = None,
) -> None:
    """Run, and exit with 1 if an answer changed or the memory grew too far."""
    with tempfile.TemporaryDirectory(prefix="spacy-relx-soak-") as folder:
        nlp = _pipeline(base or str(_tiny_base(Path(folder) / "base")))
        run = Soak(nlp, Path(folder), random.Random(seed))
        problems = run(docs)
    measured = run.facts()
    if (growth := measured["growth_mib"]) > max_growth:
        problems.append(f"the memory grew by {growth:.0f} MiB after the first fifth; allowed {max_growth}")
    facts = {**provenance(), "docs": docs, "seed": seed, "base": base or "tiny", "problems": problems, **measured}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf8")
    print(json.dumps({key: value for key, value in facts.items() if key != "samples"}, indent=2))
    if problems:
        sys.exit("; ".join(problems))


def _tiny_base(folder: Path) -> Path:
    from spacy_relx.fetch import fetch_embedded_base

    sys.path.insert(0, str(TESTS))
    from tiny import build_base

    return build_base(folder, fetch_embedded_base())


def _pipeline(base: str) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    patterns = [
        {"label": label, "pattern": [{"ORTH": word} for word in name.split()]}
        for label, names in NAMES.items()
        for name in names
    ]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    model = {"@architectures": "spacy-relx.CausalLM.v1", "base": base, "dtype": "float32", "device": "cpu"}
    nlp.add_pipe(FACTORY, config={"model": model, "labels": LABELS, "threshold": 0.0, "no_relation": None})
    return nlp


class Soak:
    """One long run.

    Args:
        nlp: The pipeline.
        folder: A folder to save in.
        rng: Decides texts and order.
    """

    def __init__(self, nlp: Language, folder: Path, rng: random.Random) -> None:
        self.nlp, self.folder, self.rng = nlp, folder, rng
        self.words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(1000)]
        self.golden = [self.text() for _ in range(20)]
        self.samples: list[dict[str, float]] = []
        self.counts: dict[str, int] = {}
        self.operations: tuple[Callable[[], int], ...] = (
            *([self.one] * 8),
            *([self.stream] * 4),
            self.abandoned_stream,
            self.other_labels,
            self.docbin,
            self.to_bytes,
            self.to_disk,
        )

    def __call__(self, n_docs: int) -> list[str]:
        """Go on until so many documents were answered; return what went wrong."""
        first = self.answers()
        problems: list[str] = []
        n_done, next_look = 0, 0.0
        while n_done < n_docs:
            operation = self.rng.choice(self.operations)
            n_done += operation()
            self.counts[operation.__name__] = self.counts.get(operation.__name__, 0) + 1
            if n_done >= next_look:
                next_look += n_docs / 50
                begin = time.process_time()
                if self.answers() != first:
                    problems.append(f"after {n_done} documents the first ones are answered otherwise")
                seconds = time.process_time() - begin
                gc.collect()
                self.samples.append({"docs": n_done, "mib": current_bytes() / 2**20, "golden_seconds": seconds})
                print(f"{n_done} documents, {self.samples[-1]['mib']:.0f} MiB, {seconds:.2f} s", flush=True)
        if self.answers() != first:
            problems.append("at the end the first documents are answered otherwise")
        return problems

    def facts(self) -> dict[str, Any]:
        """What was measured: growth of the memory since the first fifth, and CPU seconds of the same documents."""
        settled = self.samples[len(self.samples) // 5 :]
        n = max(1, len(settled) // 4)

        def mean(part: list[dict[str, float]], key: str) -> float:
            return sum(sample[key] for sample in part) / len(part)

        return {
            "growth_mib": mean(settled[-n:], "mib") - mean(settled[:n], "mib"),
            "golden_seconds_first": mean(settled[:n], "golden_seconds"),
            "golden_seconds_last": mean(settled[-n:], "golden_seconds"),
            "operations": self.counts,
            "samples": self.samples,
        }

    def text(self) -> str:
        """A text of one to three sentences, some with names, some with odd characters."""
        sentences = []
        for _ in range(self.rng.randint(1, 3)):
            words = self.rng.choices(self.words, k=self.rng.randint(3, 15))
            for _ in range(self.rng.choice((0, 1, 2, 2, 3, 4))):
                words.insert(self.rng.randrange(len(words)), self.rng.choice(NAMES[self.rng.choice(list(NAMES))]))
            if self.rng.random() < 0.1:
                words.insert(self.rng.randrange(len(words)), self.rng.choice(ODD))
            sentences.append(" ".join(words) + ".")
        return " ".join(sentences)

    def texts(self) -> Iterator[str]:
        """Some new texts."""
        return (self.text() for _ in range(self.rng.randint(1, 40)))

    def answers(self, nlp: Language | None = None) -> list[Any]:
        """All that the relations of the first texts say."""
        docs = (nlp or self.nlp).pipe(self.golden)
        return [[relation.to_dict() for relation in doc._.relations] for doc in docs]

    # Operations; each returns how many documents it has answered.

    def one(self) -> int:
        """A document by itself."""
        self.nlp(self.text())
        return 1

    def stream(self) -> int:
        """A stream."""
        return sum(1 for _ in self.nlp.pipe(self.texts(), batch_size=self.rng.choice((1, 8, 64))))

    def abandoned_stream(self) -> int:
        """A stream that nobody reads to its end."""
        next(self.nlp.pipe(self.texts()), None)
        return 1

    def other_labels(self) -> int:
        """Some of the labels, on the same model, and back."""
        names = self.rng.sample(list(LABELS), self.rng.randint(1, len(LABELS)))
        schema = parse_labels({name: LABELS[name] for name in names}, no_relation="no_relation")
        component = self.nlp.get_pipe(FACTORY).with_settings(schema=schema, no_relation="no_relation")
        with self.nlp.select_pipes(disable=[FACTORY]):
            doc = component(self.nlp(self.text()))
        assert {relation.label for relation in doc._.relations} <= set(names)
        return 1

    def docbin(self) -> int:
        """Documents to a DocBin and back."""
        docs = list(self.nlp.pipe(self.texts()))
        data = DocBin(store_user_data=True, docs=docs).to_bytes()
        again = list(DocBin().from_bytes(data).get_docs(self.nlp.vocab))
        assert [doc._.triples for doc in again] == [doc._.triples for doc in docs]
        return len(docs)

    def to_bytes(self) -> int:
        """The component to bytes and back."""
        component = self.nlp.get_pipe(FACTORY)
        component.from_bytes(component.to_bytes())
        return self.one()

    def to_disk(self) -> int:
        """The pipeline to disk; now and then it is loaded from there and has to answer the same."""
        self.nlp.to_disk(self.folder / "saved")
        if self.rng.random() < 0.1:
            assert self.answers(spacy.load(self.folder / "saved")) == self.answers()
            return 2 * len(self.golden)
        return 0


if __name__ == "__main__":
    typer.run(main)
