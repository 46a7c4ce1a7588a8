"""llama.cpp on the same GGUF: one prompt a pair, what it shares with the last one kept, a grammar of the labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

ABOUT = "llama.cpp on the GGUF: a prompt's beginning is kept from the one before, a grammar allows the labels only"
REQUIREMENTS = ["llama-cpp-python==0.3.36"]


@dataclass
class Rival:
    """A llama.cpp model, its prompts and its grammar."""

    llama: Any
    grammar: Any
    prompts: list[list[int]]
    max_new_tokens: int
    stop: frozenset[int]
    unit: str = "pairs"
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n_units(self) -> int:
        """Pairs of one run."""
        return len(self.prompts)

    def run(self) -> None:
        """Answer every prompt, in the order of the text, so that neighbours share the most."""
        for prompt in self.prompts:
            answer(self.llama, prompt, self.grammar, self.max_new_tokens, self.stop)


def answer(llama: Any, prompt: list[int], grammar: Any, max_new_tokens: int, stop: frozenset[int]) -> list[int]:
    """Continue one prompt greedily under a grammar; `generate` itself keeps what the last prompt shares with it."""
    written: list[int] = []
    for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0, grammar=grammar):
        if token in stop or len(written) == max_new_tokens:
            break
        written.append(token)
    return written


def label_grammar(labels: list[str]) -> str:
    """A GBNF grammar whose words are the labels."""
    return "root ::= " + " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)


def prepare(task: dict[str, Any]) -> Rival:
    """Load the GGUF file."""
    if task["gguf"] is None:
        raise ValueError("the model has no GGUF file; name one with --gguf")
    import llama_cpp

    longest = max(map(len, task["prompts"])) + task["max_new_tokens"] + 1
    llama = llama_cpp.Llama(
        model_path=task["gguf"],
        n_ctx=longest,
        n_batch=512,
        n_threads=task["threads"],
        n_threads_batch=task["threads"],
        n_gpu_layers=-1 if task["device"] == "cuda" else 0,
        verbose=False,
    )
    return Rival(
        llama,
        llama_cpp.LlamaGrammar.from_string(label_grammar(task["labels"]), verbose=False),
        task["prompts"],
        task["max_new_tokens"],
        frozenset({task["terminal"], llama.token_eos()}),
        facts={"about": ABOUT, "gguf": task["gguf"].rpartition("/")[2], "versions": {"llama-cpp-python": version()}},
    )


def version() -> str:
    """The version that is installed."""
    import llama_cpp

    return str(llama_cpp.__version__)
