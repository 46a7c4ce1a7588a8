"""The benchmark suite: the packed engine against its rivals and the machine, and one property varied at a time.

    python benchmarks/suite.py --conll04 conll04_test.json --shots 2 --rivals all --build \
        --out benchmarks/results/suite.2shot.json --plot benchmarks/results/suite.2shot.svg

A rival that cannot be run is in the result with the reason. `--build` makes the environments that some rivals need.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots
import results
from rivals import REMOTE
from rivals.environments import python_of
from rivals.remote import Remote, Unavailable
from rivals.serve import load_module
from rivals.task import make_task
from sweeps import SWEEPS, Point, points
from workload import build_prompts, load_documents, questions_of

from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.engine_run import Contestant, measure
from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.rivals import NAMES, answer_tokens, generate
from spacy_relx.cache import cache_dir
from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.resolve import resolve_base
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.errors import RelxError
from spacy_relx.fetch import embedded_gguf_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.types import Question


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON and a picture."""
    args = _parser().parse_args(arguments)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    started = time.perf_counter()
    loaded = load_model(_spec(args, args.dtype, args.quantization))
    load_seconds = time.perf_counter() - started
    with ExitStack() as stack:
        main_result, not_run = _main_table(args, loaded, stack)
    swept = _sweeps(args, loaded)
    result = {
        **provenance(),
        "model": model_facts(loaded),
        "data": args.conll04.name if args.conll04 else "made up",
        "shots": args.shots,
        "load_seconds": round(load_seconds, 3),
        "main": main_result,
        "not_run": not_run,
        "sweeps": swept,
    }
    results.write(args.out, result)
    if args.plot:
        plots.suite(args.plot, result)


def _main_table(
    args: argparse.Namespace, loaded: LoadedModel, stack: ExitStack
) -> tuple[dict[str, Any], dict[str, str]]:
    """The engine and all rivals, in turn, on the same documents."""
    import torch

    documents = load_documents(args.conll04, args.limit)
    builder, labels = build_prompts(loaded.tokenizer, args.shots)
    work = questions_of(documents, builder, len(labels))
    engine = PackedEngine(loaded, args.pack)
    started = time.perf_counter()
    engine.rank(next(questions for questions in work if questions), labels)
    first_seconds = time.perf_counter() - started
    task = make_task(
        loaded,
        resolve_base(loaded.spec),
        _gguf(args),
        documents,
        work,
        labels,
        n_documents=args.rival_documents,
        threads=torch.get_num_threads(),
        batch=args.batch,
    )
    rivals, not_run = start_rivals(args.rivals, task, loaded, args.environments, stack, build=args.build)
    # A rival of another process that fails in the middle would take all the measurements with it: each ran once before.
    calls = _calls(work, args.documents_a_pass)
    found = measure(
        engine, calls, labels, rounds=args.rounds, rivals=rivals, n_documents=len(documents), progress=_tell
    )
    return {
        "documents_a_pass": args.documents_a_pass,
        "first_answer_seconds": round(first_seconds, 3),
        **found,
    }, not_run


def start_rivals(
    names: Sequence[str],
    task: Mapping[str, Any],
    loaded: LoadedModel | None,
    environments: Path,
    stack: ExitStack,
    *,
    build: bool,
    modules: Mapping[str, Path] = REMOTE,
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Start rivals.

    Args:
        names: Of `spacy_relx.benchmark.rivals.NAMES` and `modules`.
        task: What they are given.
        loaded: The model of those that run in this process.
        environments: Where environments of rivals are kept.
        stack: Ends the processes that were started.
        build: Whether environments may be made.
        modules: The files of those that run in a process of their own.

    Returns:
        Those that run, and the reason for each that does not.
    """
    running: dict[str, Contestant] = {}
    not_run: dict[str, str] = {}
    for name in names:
        _tell(f"start {name}")
        if name in NAMES and loaded is not None:
            running[name] = local_rival(name, task, loaded)
            continue
        try:
            needs = load_module(modules[name]).REQUIREMENTS
            python = python_of(name, needs, environments, build=build)
            remote = stack.enter_context(Remote(modules[name], python, task["threads"]))
            running[name] = remote.prepare(task)
        except Unavailable as reason:
            not_run[name] = str(reason)
    return running, not_run


def local_rival(name: str, task: Mapping[str, Any], loaded: LoadedModel) -> Contestant:
    """A rival that needs transformers alone, on the model that is loaded."""
    from spacy_relx.engine.types import Prompt

    prompts = [Prompt(tuple(ids)) for ids in task["prompts"]]
    batch = 1 if name == "card" else task["batch"]
    facts = {"about": NAMES[name], "batch": batch}
    return Contestant(lambda: generate(loaded, prompts, task["max_new_tokens"], batch), len(prompts), "pairs", facts)


def _sweeps(args: argparse.Namespace, loaded: LoadedModel) -> dict[str, list[dict[str, Any]]]:
    """Every sweep, without rivals; a point that cannot be measured says why."""

    @cache
    def model(dtype: str, quantization: str) -> LoadedModel:
        if (dtype, quantization) == (args.dtype, args.quantization):
            return loaded
        return load_model(_spec(args, dtype, quantization))

    middle = Point(shots=args.shots, dtype=args.dtype, quantization=args.quantization, pack=args.pack)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in args.sweeps:
        rows = found.setdefault(name, [])
        for point in points(name, middle):
            row = {"value": getattr(point, SWEEPS[name][0]), "point": point.to_dict()}
            _tell(f"{name}: {row['value']}")
            try:
                row |= _measure_point(point, model(point.dtype, point.quantization), args)
            except (RelxError, ImportError, RuntimeError) as error:
                row["not_run"] = f"{type(error).__name__}: {error}"
            rows.append(row)
    return found


def _measure_point(point: Point, loaded: LoadedModel, args: argparse.Namespace) -> dict[str, Any]:
    builder, labels = build_prompts(loaded.tokenizer, point.shots, point.labels)
    documents = made_up(point.documents(args.sweep_pairs), point.entities, point.words)
    work = questions_of(documents, builder, len(labels))
    engine = PackedEngine(loaded, point.pack)
    found = measure(engine, _calls(work, point.batch), labels, rounds=args.rounds, n_documents=len(documents))
    return {**found, "longest_answer_tokens": answer_tokens(labels)}


def _calls(work: Sequence[Sequence[Question]], documents: int) -> list[list[Question]]:
    """The questions of so many documents at a time."""
    return [
        [question for questions in work[start : start + documents] for question in questions]
        for start in range(0, len(work), documents)
    ]


def _spec(args: argparse.Namespace, dtype: str, quantization: str) -> ModelSpec:
    return ModelSpec(args.base, args.adapter, quantization=quantization, dtype=dtype, device=args.device)  # type: ignore[arg-type]


def _gguf(args: argparse.Namespace) -> Path | None:
    if args.gguf is None and args.base == EMBEDDED_BASE:
        path = embedded_gguf_path()
        return path if path.is_file() else None
    chosen: Path | None = args.gguf
    return chosen


def _tell(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    every = [*NAMES, *REMOTE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conll04", type=Path, help="CoNLL04 test file; made-up documents otherwise")
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--adapter")
    parser.add_argument("--gguf", type=Path, help="the base as a GGUF file, for llama.cpp")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--pack", type=int, help="most tokens of a pack")
    parser.add_argument("--limit", type=int, default=40, help="documents")
    parser.add_argument(
        "--documents-a-pass", type=int, default=1, help="documents that share packs, as with `pool` on a processor"
    )
    parser.add_argument("--shots", type=int, choices=range(9), default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="prompts or sentences at a time of batched rivals")
    parser.add_argument("--rival-documents", type=int, default=3, help="documents the slow rivals get (rates compare)")
    parser.add_argument(
        "--rivals", type=lambda text: every if text == "all" else _names(text, every), default=list(NAMES)
    )
    parser.add_argument("--sweeps", type=lambda text: _names(text, list(SWEEPS)), default=list(SWEEPS))
    parser.add_argument("--sweep-pairs", type=int, default=96, help="pairs of a sweep's point, about")
    parser.add_argument("--environments", type=Path, default=cache_dir() / "benchmark-environments")
    parser.add_argument("--build", action="store_true", help="make environments that are not there")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="an .svg file")
    return parser


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = {"all": list(known), "none": []}.get(text, text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(known)}; or all, or none")
    return names


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    main()
