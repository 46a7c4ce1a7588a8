"""What to load: a base model, its adapter, its number format and its place. Plain data; no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from spacy_relx.errors import ConfigError

Quantization = Literal["none", "nf4", "fp4", "int8"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["packed", "reference"]

QUANTIZATIONS = ("none", "nf4", "fp4", "int8")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ENGINES = ("packed", "reference")

#: The name by which the embedded base model is known; `spacy_relx.fetch` says where its file comes from.
EMBEDDED_BASE = "SmolLM2-135M-Instruct"
#: Where the Hugging Face Hub has the model that it was made from.
EMBEDDED_BASE_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The packaged adapter that was trained on it; `spacy_relx.adapters` has its files.
EMBEDDED_ADAPTER = "smollm2-general-v2"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything that decides which numbers a model computes.

    Attributes:
        base: `EMBEDDED_BASE`, a Hugging Face Hub name, a local folder, or the path of a GGUF file.
        adapter: A PEFT LoRA adapter (name of a packaged one, local folder, or Hub name), or None.
        quantization: 4- or 8-bit storage of the base's weights by bitsandbytes, or "none".
        dtype: Number format of the computation; "auto" is bfloat16 on CUDA and on processors with bfloat16
            instructions, else float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        revision: Git revision of the base on the Hub.
        adapter_revision: Git revision of the adapter on the Hub.
        local_files_only: Never ask the network.
        merge_adapter: Fold the adapter into an unquantised base (in float32, before the cast).
        double_quant: Quantise the quantisation constants too (4-bit only).

    Raises:
        ConfigError: If a value is not one of those above.
    """

    base: str
    adapter: str | None = None
    quantization: Quantization = "none"
    dtype: DType = "auto"
    device: str = "auto"
    revision: str | None = None
    adapter_revision: str | None = None
    local_files_only: bool = False
    merge_adapter: bool = True
    double_quant: bool = True

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("quantization", self.quantization, QUANTIZATIONS),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in allowed:
                raise ConfigError(f"model.{name} is {value!r}. Expected one of {', '.join(allowed)}.")
        if not isinstance(self.base, str) or not self.base.strip():
            raise ConfigError(f"model.base is {self.base!r}. Expected a Hub name, a folder or a GGUF file.")

    @property
    def known_base(self) -> str:
        """The name by which others know the base: its Hub name, or the name or path that the user gave."""
        return EMBEDDED_BASE_ON_HUB if self.base == EMBEDDED_BASE else self.base

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain values."""
        return asdict(self)
