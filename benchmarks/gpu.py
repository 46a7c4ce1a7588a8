"""One command for an NVIDIA machine: a model of Llama-3.2-3B's exact shape with random weights, NF4 with LoRA r=64.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json

Measures pairs a second by pack size against left-padded batched `generate` (and vLLM where it is installed), the share
of the matrix-product limit, and peak allocated memory. Needs torch, transformers, peft and bitsandbytes; no spaCy, no
network. `--tiny` is the same on a processor in seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import random_llama
import results
import torch
from rivals import REMOTE
from rivals.remote import Remote, Unavailable

from spacy_relx.benchmark.engine_run import Contestant, measure, synchroniser
from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.rivals import NAMES, answer_tokens, generate, some_pairs
from spacy_relx.benchmark.timing import Summary, interleave
from spacy_relx.engine.packed import DEFAULT_PACK_TOKENS, PackedEngine
from spacy_relx.engine.packing import PACKS_A_POOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.types import LabelIds, Question

#: Tokens of the shared run, a sentence, a head, a tail with what follows it: about those of CoNLL04's 0-shot prompts,
#: which makes about 15 distinct tokens a pair.
_TOKENS = (160, 40, 8, 11)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON."""
    args = _arguments(arguments)
    device = torch.device("cpu" if args.tiny else args.device)
    dtype = torch.float32 if args.tiny else torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here. Run on an NVIDIA machine, or with --tiny on a processor.")
    started = time.perf_counter()
    loaded = random_llama.build(
        "tiny" if args.tiny else args.shape, device, dtype, quantization=args.quantization, rank=args.rank
    )
    build_seconds = time.perf_counter() - started
    vocabulary = loaded.model.config.vocab_size  # type: ignore[union-attr]
    n_documents = max(1, args.pairs // (args.entities * (args.entities - 1)))
    work, labels = random_llama.questions(n_documents, args.entities, _TOKENS, vocabulary)
    packs = args.packs or [DEFAULT_PACK_TOKENS.get(device.type, 2048)]
    found, not_run = {}, {}
    with ExitStack() as stack:
        for i, pack in enumerate(packs):
            # The rivals know no packs; they run beside the first size.
            rivals, why = _rivals(args, loaded, work, labels, stack) if i == 0 else ({}, {})
            not_run |= why
            try:
                calls = random_llama.pooled(work, PACKS_A_POOL * pack)
                found[str(pack)] = measure(
                    PackedEngine(loaded, pack),
                    calls,
                    labels,
                    rounds=args.rounds,
                    n_documents=n_documents,
                    rivals=rivals,
                )
            except torch.OutOfMemoryError as error:
                not_run[f"pack {pack}"] = str(error).splitlines()[0]
                torch.cuda.empty_cache()
    results.write(
        args.out,
        {
            **provenance(),
            "model": {**model_facts(loaded), "weights": "random", "lora_rank": args.rank},
            "build_seconds": round(build_seconds, 2),
            "weights_and_adapter_mib": round(_weight_bytes(loaded) / 2**20, 1),
            "default_pack": DEFAULT_PACK_TOKENS.get(device.type, 2048),
            "documents": n_documents,
            "entities": args.entities,
            "packs": found,
            "dequantise_all_matrices_seconds": dequantise(loaded, args.rounds),
            "not_run": not_run,
        },
    )


def _rivals(
    args: argparse.Namespace,
    loaded: LoadedModel,
    work: Sequence[Sequence[Question]],
    labels: LabelIds,
    stack: ExitStack,
) -> tuple[dict[str, Contestant], dict[str, str]]:
    prompts, new_tokens = some_pairs(work, args.rival_pairs), answer_tokens(labels)
    running = {
        f"batched {batch}": Contestant(
            lambda batch=batch: generate(loaded, prompts, new_tokens, batch),  # type: ignore[misc]
            len(prompts),
            facts={"about": NAMES["batched"], "batch": batch},
        )
        for batch in args.batches
    }
    few = prompts[: args.card_pairs]
    running["card"] = Contestant(lambda: generate(loaded, few, new_tokens, 1), len(few), facts={"about": NAMES["card"]})
    if not args.vllm:
        return running, {"vllm": "not asked for; --vllm runs it where it is installed"}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "config.json").write_text(json.dumps(loaded.model.config.to_dict(), default=str))  # type: ignore[operator,union-attr]
    task = {
        "model": str(folder),
        "device": loaded.device.type,
        "prompts": [list(question.prompt.ids) for questions in work for question in questions],
        "max_new_tokens": new_tokens,
        "memory_share": args.vllm_memory,
    }
    remote = stack.enter_context(Remote(REMOTE["vllm"]))
    try:
        return {**running, "vllm": remote.prepare(task)}, {}
    except Unavailable as reason:
        return running, {"vllm": str(reason)}


def dequantise(loaded: LoadedModel, rounds: int) -> dict[str, float] | None:
    """Seconds to bring every 4-bit matrix back to the computation's format once; None where nothing is quantised."""
    layers = [m for m in loaded.model.modules() if getattr(getattr(m, "weight", None), "quant_state", None) is not None]
    if not layers:
        return None
    from bitsandbytes.functional import dequantize_4bit

    def run() -> None:
        for layer in layers:
            weight: Any = layer.weight
            dequantize_4bit(weight.data, weight.quant_state)

    seconds = interleave({"dequantise": run}, rounds, synchronise=synchroniser(loaded.device.type))
    return Summary.of(seconds["dequantise"]).to_dict()


def _weight_bytes(loaded: LoadedModel) -> int:
    tensors: dict[int, Any] = {}
    for tensor in [*loaded.model.parameters(), *loaded.model.buffers()]:
        tensors[tensor.data_ptr()] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on a processor, in seconds")
    parser.add_argument("--shape", choices=list(random_llama.SHAPES), default="Llama-3.2-3B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quantization", choices=("nf4", "none"), default="nf4")
    parser.add_argument("--rank", type=int, default=64, help="of the LoRA adapter; 0 for none")
    parser.add_argument("--packs", type=_numbers, help="pack sizes; 2048,8192,16384,32768 on a GPU")
    parser.add_argument("--pairs", type=int, default=8448, help="about")
    parser.add_argument("--entities", type=int, default=12, help="of a document")
    parser.add_argument("--batches", type=_numbers, default=[32, 128], help="batches of generate")
    parser.add_argument("--rival-pairs", type=int, default=512, help="pairs of batched generate")
    parser.add_argument("--card-pairs", type=int, default=16, help="pairs of the model card's loop")
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--vllm-memory", type=float, default=0.5, help="share of the GPU's memory that vLLM takes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    if args.tiny:
        args.pairs, args.entities, args.rival_pairs, args.card_pairs = 24, 4, 4, 2
        args.rank, args.batches, args.packs, args.rounds = min(args.rank, 4), [2], args.packs or [256, 1024], 1
    elif args.packs is None:
        args.packs = [8192, 2048, 16384, 32768]  # the default first: the rivals run beside it
    return args


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
