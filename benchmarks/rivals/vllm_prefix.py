"""vLLM with prefix caching on the same prompts; on a GPU where vLLM is installed.

The weights are vLLM's dummy ones of the model's configuration, in 16 bits: what a token means is not measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ABOUT = "vLLM with prefix caching, 16-bit dummy weights of the same configuration, greedy"
REQUIREMENTS: list[str] = []  # it brings a torch of its own: used where it is installed, never installed here


@dataclass
class Rival:
    """An engine of vLLM and its prompts."""

    llm: Any
    prompts: list[dict[str, Any]]
    settings: Any
    unit: str = "pairs"
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n_units(self) -> int:
        """Pairs of one run."""
        return len(self.prompts)

    def run(self) -> None:
        """Answer every prompt from an empty cache, as new documents would be."""
        self.llm.reset_prefix_cache()
        self.llm.generate(self.prompts, self.settings, use_tqdm=False)


def prepare(task: dict[str, Any]) -> Rival:
    """Start vLLM; it takes as much memory of the GPU as it is told."""
    if task["device"] != "cuda":
        raise RuntimeError("it is measured on CUDA only")
    import vllm

    longest = max(map(len, task["prompts"])) + task["max_new_tokens"] + 1
    llm = vllm.LLM(
        model=task["model"],
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        enable_prefix_caching=True,
        max_model_len=longest,
        gpu_memory_utilization=task.get("memory_share", 0.5),
        seed=0,
    )
    settings = vllm.SamplingParams(temperature=0.0, max_tokens=task["max_new_tokens"], detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]
    return Rival(llm, prompts, settings, facts={"about": ABOUT, "versions": {"vllm": vllm.__version__}})
