"""From a `ModelSpec` to a model that answers: base, adapter, quantisation, tokenizer.

The only module that imports peft and bitsandbytes, and it does so inside functions. Everything that can be checked
without weights (files, architecture, adapter) is checked before they are read. What the model is asked, and how, is
the engines' business.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.adapter import (
    Adapter,
    full_tensors,
    lora_tensors,
    read_adapter,
    verify_adapter,
)
from spacy_relx.engine.checkpoint import base_fingerprint, check_base_folder
from spacy_relx.engine.device import choose_device, choose_dtype
from spacy_relx.engine.quiet import import_bitsandbytes, quiet_transformers
from spacy_relx.engine.resolve import resolve_adapter, resolve_base, tokenizer_from
from spacy_relx.engine.skeleton import build_skeleton, layers_of, load_config
from spacy_relx.errors import AdapterMismatchError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from spacy_relx.cache import Progress
    from spacy_relx.engine.spec import ModelSpec

_ADAPTER_NAME = "default"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and what is known about it.

    Attributes:
        model: The transformers model itself, in evaluation mode and without gradients; where the adapter was not
            merged, its linear layers are PEFT's LoRA layers. There is no wrapper around it.
        tokenizer: The adapter's own tokenizer where it has one, else the base's.
        spec: What was asked for.
        device: Where the model is.
        dtype: The number format of its computation.
        fingerprint: 64 hexadecimal digits that change with the base's weights, the adapter, the quantisation, the
            number format and the merge: whatever changes the numbers a model computes.
        base_fingerprint: 32 hexadecimal digits for the base's weights alone.
        adapter_info: Empty without an adapter; else `config` (its `adapter_config.json`), `metadata` (what
            spacy-relx left in it: `base_fingerprint`, `threshold`, `schema`), `sha256` and `merged`.
        base_folder: Where the base's weights were read from.
    """

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    spec: ModelSpec
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    base_fingerprint: str
    adapter_info: dict[str, Any] = field(default_factory=dict)
    base_folder: Path | None = None


def load_model(spec: ModelSpec, progress: Progress | None = None, *, trainable: bool = False) -> LoadedModel:
    """Load a base model, put its adapter on it, and load the tokenizer.

    Args:
        spec: What to load.
        progress: Told about a fetch or a conversion, where one is needed.
        trainable: Whether gradients have to come through the base, which a 4-bit base on a processor otherwise stops.

    Raises:
        ModelNotFoundError: If the base or the adapter is not here and cannot be fetched.
        UnsafeCheckpointError: If either is a pickle or needs its repository's code.
        AdapterMismatchError: If the adapter does not belong to the base.
        ModelError: If anything else prevents loading.
    """
    device = choose_device(spec.device)
    dtype = _compute_dtype(spec, device)
    base = resolve_base(spec, progress)
    config = check_base_folder(base)
    stored = _stored_quantization(base, config)
    if spec.quantization != "none" and stored is None:
        _require_bitsandbytes(spec.quantization)
    identity = base_fingerprint(base)
    adapter = None if spec.adapter is None else read_adapter(resolve_adapter(spec))
    lora = None if adapter is None else _verified_config(adapter, base, spec.base, identity)
    quantized = spec.quantization != "none" or stored is not None
    merged = adapter is not None and spec.merge_adapter and not quantized

    model = _load_weights(base, spec, device, dtype, as_stored=merged, stored=stored)
    info: dict[str, Any] = {}
    if quantized and (dtype == torch.float32 or trainable):
        _keep_general_products(model)
    if adapter is not None:
        _attach(model, adapter, lora, torch.float32 if merged else dtype)
        if merged:
            _merge(model, dtype)
        info = {
            "config": adapter.config,
            "metadata": adapter.metadata,
            "sha256": adapter.digest,
            "merged": merged,
        }
    model.requires_grad_(False)
    model.eval()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer_from(base, None if adapter is None else adapter.folder),
        spec=spec,
        device=device,
        dtype=dtype,
        fingerprint=_fingerprint(identity, adapter, spec, dtype, merged),
        base_fingerprint=identity,
        adapter_info=info,
        base_folder=base,
    )


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `load_model` would give, without reading any weights.

    Raises:
        ModelNotFoundError: If it is not here and cannot be fetched.
    """
    adapter = None if spec.adapter is None else resolve_adapter(spec, weights=False)
    return tokenizer_from(resolve_base(spec, weights=False), adapter)


def _compute_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    if spec.quantization in ("nf4", "fp4") and spec.dtype == "auto":
        return torch.bfloat16  # what 4-bit adapters are trained with
    return choose_dtype(spec.dtype, device)


def _require_bitsandbytes(quantization: str) -> None:
    if not import_bitsandbytes():
        raise ModelError(
            f"model.quantization is {quantization!r}, which needs bitsandbytes. Run `pip install 'spacy-relx[gpu]'`, "
            "or set it to 'none'."
        )
    if quantization == "int8":
        # It says in every layer of every forward pass that its 8-bit product takes float16 inputs.
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_drop_cast_notice)


def _drop_cast_notice(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


def _stored_quantization(base: Path, config: dict[str, Any]) -> str | None:
    """Return the quantisation a checkpoint is stored in, or None; only bitsandbytes' own is accepted."""
    stored = config.get("quantization_config")
    if not stored:
        return None
    method = str(stored.get("quant_method"))
    if method != "bitsandbytes":
        raise ModelError(
            f"{base} is stored in the quantisation {method!r}. Expected an unquantised checkpoint, one stored by "
            "bitsandbytes, or a GGUF file."
        )
    _require_bitsandbytes(method)
    return json.dumps(stored, sort_keys=True)


def _quantization_argument(spec: ModelSpec, dtype: torch.dtype) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    if spec.quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=spec.quantization,
            bnb_4bit_use_double_quant=spec.double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def _verified_config(adapter: Adapter, base: Path, base_name: str, identity: str) -> Any:
    """Check an adapter against a base, without weights, and return PEFT's settings for it."""
    import_bitsandbytes()
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = layers_of(build_skeleton(base))
    try:
        config = LoraConfig.from_pretrained(str(adapter.folder))
    except (TypeError, ValueError) as error:
        raise AdapterMismatchError(f"{adapter.folder}/adapter_config.json cannot be used: {error}.") from error
    config.modules_to_save = None  # whole tensors are put in place by `_attach`
    config.init_lora_weights = False
    config.inference_mode = True
    if config.target_modules is None:  # PEFT would guess from the architecture; the file knows
        config.target_modules = {module for module, _ in lora_tensors(adapter).values()}
    everything = config.target_modules == "all-linear"

    def targets(name: str) -> bool:
        return name != layers.output if everything else bool(check_target_module_exists(config, name))

    verify_adapter(adapter, layers, targets, base=base_name, fingerprint=identity)
    return config


def _load_weights(
    base: Path, spec: ModelSpec, device: torch.device, dtype: torch.dtype, *, as_stored: bool, stored: str | None
) -> Any:
    """Read the base's weights onto the device; `as_stored` keeps the checkpoint's number format for a merge."""
    from transformers import AutoModelForCausalLM

    arguments: dict[str, Any] = {"dtype": "auto" if as_stored else dtype, "device_map": {"": device}}
    if spec.quantization != "none" and stored is None:
        arguments |= _quantization_argument(spec, dtype)
    try:
        with quiet_transformers():
            return AutoModelForCausalLM.from_pretrained(
                base,
                config=load_config(base),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                use_kernels=False,
                **arguments,
            )
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{spec.base} does not fit into the memory of {device}. Use quantization='nf4', dtype='bfloat16', a "
            "smaller model, or device='cpu'."
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise ModelError(f"{spec.base} ({base}) could not be loaded: {error}") from error


def _keep_general_products(model: Any) -> None:
    """Keep 4-bit layers on a CPU from the product that bitsandbytes has for processors with AVX512-BF16.

    It rounds a layer's input and its constants to bfloat16 whatever the compute type says, and gives no gradient. It is
    not taken where the layer says that the processor cannot.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _attach(model: Any, adapter: Adapter, config: Any, dtype: torch.dtype) -> None:
    """Put a verified adapter beside the base's layers.

    PEFT builds the layers, empty; the tensors are then put in place one by one. So the number format is the one
    asked for (PEFT makes adapters float32 unless told), and no key can go astray.
    """
    from peft import inject_adapter_in_model
    from safetensors import safe_open

    inject_adapter_in_model(config, model, adapter_name=_ADAPTER_NAME, low_cpu_mem_usage=True)
    device = model.get_input_embeddings().weight.device
    pairs, whole = lora_tensors(adapter), full_tensors(adapter)
    with safe_open(adapter.weights, framework="pt", device="cpu") as file:
        for key, (module, part) in pairs.items():
            layer = getattr(model.get_submodule(module), f"lora_{part}")[_ADAPTER_NAME]
            value = file.get_tensor(key).to(device, dtype)
            layer.weight = torch.nn.Parameter(value, requires_grad=False)
        for key, name in whole.items():
            parameter = model.get_parameter(name)
            parameter.data = file.get_tensor(key).to(device, parameter.dtype)


def _merge(model: Any, dtype: torch.dtype) -> None:
    """Fold the adapter into the weights in float32, then take every parameter to its number format.

    Only parameters are cast: the rotary frequencies are a float32 buffer and lose precision in a 16-bit format.
    """
    for name, layer in list(_lora_layers(model)):
        base = layer.get_base_layer()
        delta = layer.get_delta_weight(_ADAPTER_NAME)
        base.weight.data = (base.weight.data.float() + delta.float()).to(dtype)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, base)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    if hasattr(model, "peft_config"):
        del model.peft_config


def _lora_layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _fingerprint(identity: str, adapter: Adapter | None, spec: ModelSpec, dtype: torch.dtype, merged: bool) -> str:
    matter = {
        "base": identity,
        "adapter": None if adapter is None else adapter.digest,
        "quantization": spec.quantization,
        "double_quant": spec.double_quant and spec.quantization in ("nf4", "fp4"),
        "dtype": str(dtype),
        "merged": merged,
    }
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()
