"""From a `ModelSpec` to a model that answers: base, adapter, quantisation, tokenizer.

The only module that imports peft and bitsandbytes, and it does so inside functions. Everything that can be checked
without weights (files, architecture, adapter) is checked before they are read. What the model is asked, and how, is
the engines' business.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.adapter import (
    Adapter,
    Layers,
    full_tensors,
    lora_tensors,
    read_adapter,
    verify_adapter,
)
from spacy_relx.engine.checkpoint import base_fingerprint, check_base_folder
from spacy_relx.engine.quiet import quiet_transformers
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.errors import AdapterMismatchError, ModelError, ModelNotFoundError, UnsafeCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedTokenizerBase

    from spacy_relx.cache import Progress
    from spacy_relx.engine.spec import ModelSpec
    from spacy_relx.hub import Kind

_ADAPTER_NAME = "default"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


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
    """

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    spec: ModelSpec
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    base_fingerprint: str
    adapter_info: dict[str, Any] = field(default_factory=dict)


def load_model(spec: ModelSpec, progress: Progress | None = None) -> LoadedModel:
    """Load a base model, put its adapter on it, and load the tokenizer.

    Args:
        spec: What to load.
        progress: Told about a fetch or a conversion, where one is needed.

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
        tokenizer=_load_tokenizer(base, None if adapter is None else adapter.folder),
        spec=spec,
        device=device,
        dtype=dtype,
        fingerprint=_fingerprint(identity, adapter, spec, dtype, merged),
        base_fingerprint=identity,
        adapter_info=info,
    )


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `load_model` would give, without reading any weights.

    Raises:
        ModelNotFoundError: If it is not here and cannot be fetched.
    """
    adapter = None if spec.adapter is None else resolve_adapter(spec, weights=False)
    return _load_tokenizer(resolve_base(spec, weights=False), adapter)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ModelError: If the name is no device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"model.device is {name!r}. Expected auto, cpu, cuda, cuda:N or mps.") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(f"model.device is {name!r}, but torch sees {count} CUDA devices. Use auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(f"model.device is {name!r}, but torch sees no MPS device here. Use auto or cpu.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of a name.

    "auto" is bfloat16 on CUDA; on MPS where a bfloat16 product works; on a CPU with bfloat16 instructions
    (AVX512-BF16 or AMX-BF16), for without them bfloat16 is slower than float32; else float32.
    """
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
        works = float(one @ one) == 1.0
    except (RuntimeError, TypeError):
        works = False
    return torch.bfloat16 if works else torch.float32


def resolve_base(spec: ModelSpec, progress: Progress | None = None, *, weights: bool = True) -> Path:
    """Return the local folder of a spec's base model, fetching or converting it where needed.

    Args:
        spec: What to load.
        progress: Told about a fetch or a conversion.
        weights: Whether the weights are wanted, or the tokenizer alone.
    """
    from spacy_relx.fetch import convert_gguf, fetch_embedded_base

    if spec.base == EMBEDDED_BASE:
        return fetch_embedded_base(spec.local_files_only, progress)
    path = Path(spec.base).expanduser()
    if path.suffix.lower() == ".gguf" or path.is_file():
        return convert_gguf(path, progress)
    return _local_or_hub(spec.base, spec.revision, spec.local_files_only, "base model" if weights else "tokenizer")


def resolve_adapter(spec: ModelSpec, *, weights: bool = True) -> Path:
    """Return the local folder of a spec's adapter, fetching it where needed."""
    assert spec.adapter is not None
    kind: Kind = "adapter" if weights else "tokenizer"
    return _local_or_hub(spec.adapter, spec.adapter_revision, spec.local_files_only, kind)


def _local_or_hub(name: str, revision: str | None, local_files_only: bool, kind: Kind) -> Path:
    from spacy_relx.fetch import fetch_hub

    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(f"There is no folder {name} ({kind}). Expected an existing folder or a Hub name.")
    return fetch_hub(name, revision, local_files_only, kind)


def _compute_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    if spec.quantization in ("nf4", "fp4") and spec.dtype == "auto":
        return torch.bfloat16  # what 4-bit adapters are trained with
    return choose_dtype(spec.dtype, device)


def _cpu_has_bfloat16() -> bool:
    capabilities: Callable[[], Any] | None = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        known = capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    probe: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


def _require_bitsandbytes(quantization: str) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"model.quantization is {quantization!r}, which needs bitsandbytes. Run `pip install 'spacy-relx[gpu]'`, "
            "or set it to 'none'."
        ) from error


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


def _load_config(base: Path) -> Any:
    """Read a model's configuration with the classes of transformers only, never the repository's."""
    from transformers import CONFIG_MAPPING, AutoConfig

    written = check_base_folder(base)
    kind = written.get("model_type")
    if kind not in CONFIG_MAPPING:
        if written.get("auto_map"):
            raise UnsafeCheckpointError(
                f"{base} is of the type {kind!r} and brings program code of its own, which is not run. Expected an "
                "architecture that transformers knows."
            )
        raise ModelError(f"{base} is of the type {kind!r}, which this transformers does not know; update it.")
    return AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)


def _skeleton(base: Path) -> Any:
    """Build the model without weights (on the meta device), to learn its layers' names and shapes."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(_load_config(base), trust_remote_code=False)


def layers_of(model: Any) -> Layers:
    """List the layers of an unquantised model, for `verify_adapter`."""
    names = {module: name for name, module in model.named_modules()}
    return Layers(
        linear={
            name: (module.out_features, module.in_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        },
        parameters={name: tuple(p.shape) for name, p in model.named_parameters()},
        tied=bool(getattr(model.config, "tie_word_embeddings", False)),
        output=names.get(model.get_output_embeddings(), "lm_head"),
        embedding=names.get(model.get_input_embeddings(), "model.embed_tokens"),
    )


def _verified_config(adapter: Adapter, base: Path, base_name: str, identity: str) -> Any:
    """Check an adapter against a base, without weights, and return PEFT's settings for it."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = layers_of(_skeleton(base))
    try:
        config = LoraConfig.from_pretrained(str(adapter.folder))
    except (TypeError, ValueError) as error:
        raise AdapterMismatchError(f"{adapter.folder}/adapter_config.json cannot be used: {error}.") from error
    config.modules_to_save = None  # whole tensors are put in place by `_attach`
    config.init_lora_weights = False
    config.inference_mode = True
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
                config=_load_config(base),
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


def _load_tokenizer(base: Path, adapter: Path | None) -> PreTrainedTokenizerBase:
    """Load the adapter's tokenizer if it brings one, else the base's; the chat template likewise."""
    from transformers import AutoTokenizer

    own = adapter is not None and any((adapter / name).is_file() for name in _TOKENIZER_FILES)
    folders = [adapter, base] if own else [base]
    loaded: list[Any] = []
    for folder in folders:
        try:
            with quiet_transformers():
                loaded.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
        except (OSError, ValueError, KeyError, ImportError) as error:
            if loaded:
                break  # the base's tokenizer is only wanted for its template
            raise ModelError(f"The tokenizer in {folder} could not be loaded: {error}") from error
        if loaded[0].chat_template:
            break
    tokenizer = loaded[0]
    if not tokenizer.chat_template and len(loaded) > 1:
        tokenizer.chat_template = loaded[1].chat_template
    result: PreTrainedTokenizerBase = tokenizer
    return result


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
