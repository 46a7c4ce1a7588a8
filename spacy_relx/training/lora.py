"""The weights that training changes: a LoRA adapter beside a frozen, possibly quantised base.

The layers are PEFT's. What an optimiser changes is a float32 copy of their matrices (the masters); the layers compute
with the copy rounded to bfloat16, which is what is saved. So a model that is evaluated between two updates is the model
that a saved adapter gives.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spacy_relx.engine.adapter import CONFIG, METADATA_KEY, WEIGHTS
from spacy_relx.engine.quiet import import_bitsandbytes
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.errors import ConfigError, TrainingError
from spacy_relx.training.files import replaced_folder
from spacy_relx.training.lora_settings import PROJECTIONS, LoraSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spacy_relx.engine.loading import LoadedModel

_NAME = "default"
_PREFIX = "base_model.model."


class LoraWeights:
    """The trainable matrices of a loaded model.

    A model that was loaded with an adapter beside its layers goes on from that adapter, whose own shape then counts;
    otherwise a new one is put in: A random, B zero, so that the model starts as the base.

    Args:
        loaded: The model, its adapter not merged.
        settings: Shape of a new adapter; one that is there goes on with its own.
        seed: Of the random start.
        device: Where the masters are; None: where the model is.

    Attributes:
        masters: The float32 matrices by name, to be changed in place. Shapes: (rank, n_inputs) for A and
            (n_outputs, rank) for B
        gradient: The gradients of all masters, one after the other; each has its part. Shape: (n_parameters,)

    Raises:
        ConfigError: If no layer has a name that was asked for.
        TrainingError: If the adapter is merged into the base.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: LoraSettings | None = None,
        *,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        settings = settings or LoraSettings()
        _require_gradients(loaded.model)
        self._loaded = loaded
        if not loaded.adapter_info:
            self._config = _inject(loaded, settings, seed)
        elif loaded.adapter_info["merged"]:
            raise TrainingError(
                "The adapter is merged into the base, so it cannot be trained. Set merge_adapter=False."
            )
        elif loaded.adapter_info["config"].get("modules_to_save"):
            raise TrainingError("The adapter replaces whole layers of the base (modules_to_save). Expected LoRA alone.")
        else:
            self._config = dict(loaded.adapter_info["config"])
            if loaded.spec.base == EMBEDDED_BASE:
                self._config["base_model_name_or_path"] = loaded.spec.known_base
        self._layers = dict(_lora_parameters(loaded.model))
        # A model has hundreds of small matrices: what is done with all of them is done with them as one run of numbers.
        parts = [parameter.detach().flatten() for parameter in self._layers.values()]
        self._values = torch.cat(parts).to(device or parts[0].device, torch.float32)
        self.gradient = torch.zeros_like(self._values)
        self.masters = dict(zip(self._layers, self._by_layer(self._values)))
        self._gradients = self._by_layer(self.gradient)
        for master, gradient in zip(self.masters.values(), self._gradients):
            master.grad = gradient
        for parameter in self._layers.values():
            parameter.requires_grad_(True)
        self._dropout = -1.0  # of the adapter's own settings, until it is set
        self.set_dropout(0.0)
        self.write()

    @property
    def _is_on_processor(self) -> bool:
        """Whether masters and layers both are: small matrices one by one then, as they stay in its cache."""
        return all(each.device.type == "cpu" for each in (self._values, next(iter(self._layers.values()))))

    @property
    def rank(self) -> int:
        """Rank of the adapter."""
        return int(self._config["r"])

    def set_dropout(self, share: float) -> None:
        """Set the share of a layer's inputs that the adapter does not see in training mode."""
        if share == self._dropout:
            return
        for _, module in _lora_modules(self._loaded.model):
            module.lora_dropout[_NAME] = nn.Dropout(share) if share else nn.Identity()
        self._dropout = share

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return self._values.numel()

    @property
    def drops(self) -> bool:
        """Whether the layers compute otherwise in training mode."""
        return self._dropout > 0

    def take_gradients(self) -> None:
        """Add the layers' gradients to the masters', in float32, and clear the layers'."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._layers.values()]
        if self._is_on_processor:
            torch._foreach_add_(self._gradients, gradients)
        else:
            self.gradient.add_(torch.cat([gradient.flatten() for gradient in gradients]).to(self.gradient.device))
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the layers' gradients, of a pass that failed."""
        for parameter in self._layers.values():
            parameter.grad = None

    def clear_gradients(self) -> None:
        """Set the masters' gradients to zero."""
        self.gradient.zero_()

    def write(self, values: Mapping[str, Tensor] | None = None) -> None:
        """Make the layers compute with the masters, or with other values, as an adapter file would hold them."""
        layers: list[Tensor] = list(self._layers.values())
        if values is not None:
            rounded = [values[name].to(layers[0].device, torch.bfloat16) for name in self._layers]
        elif self._is_on_processor and layers[0].dtype == torch.bfloat16:
            rounded = list(self.masters.values())  # by the copy itself
        else:
            rounded = self._by_layer(self._values.to(layers[0].device, torch.bfloat16))
        with torch.no_grad():
            torch._foreach_copy_(layers, rounded)

    def _by_layer(self, values: Tensor) -> list[Tensor]:
        """Each layer's part of a run of numbers."""
        layers = self._layers.values()
        parts = torch.split(values, [parameter.numel() for parameter in layers])
        return [part.view(parameter.shape) for part, parameter in zip(parts, layers)]

    def written(self) -> dict[str, Tensor]:
        """Copies of the matrices that the layers compute with, as an adapter file would hold them."""
        return {name: p.detach().to("cpu", torch.bfloat16, copy=True) for name, p in self._layers.items()}

    def files(self, metadata: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        """The adapter as it computes now, as the files that PEFT and this package read.

        Args:
            metadata: More facts for the file's header, beside the base's fingerprint.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "adapter", metadata)
            return {path.name: path.read_bytes() for path in sorted((Path(folder) / "adapter").iterdir())}

    def save(self, folder: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the adapter as it computes now; an older one in the folder is replaced in one step.

        Args:
            folder: Where to write `adapter_config.json` and `adapter_model.safetensors`.
            metadata: More facts for the file's header, beside the base's fingerprint.

        Raises:
            TrainingError: If it cannot be written; what was there before is as it was.
        """
        facts = {"base_fingerprint": self._loaded.base_fingerprint, **(metadata or {})}
        tensors = {f"{_PREFIX}{name}": value.contiguous() for name, value in self.written().items()}
        with replaced_folder(folder, (CONFIG, WEIGHTS)) as new:
            header = {"format": "pt", METADATA_KEY: json.dumps(facts, sort_keys=True)}
            save_file(tensors, new / WEIGHTS, metadata=header)
            (new / CONFIG).write_text(json.dumps(self._config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _require_gradients(model: Any) -> None:
    """Refuse a 4-bit base whose products give no gradient: training would learn nonsense without a word."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False) or getattr(module, "support_avx512bf16_for_cpu", False):
            raise TrainingError(
                "The 4-bit base was loaded for answers alone, and gives no gradients on this processor. Load it with "
                "load_model(spec, trainable=True)."
            )


def _inject(loaded: LoadedModel, settings: LoraSettings, seed: int) -> dict[str, Any]:
    _check_targets(loaded, settings.target_modules)
    import_bitsandbytes()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, loaded.model, adapter_name=_NAME)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    for _, module in _lora_modules(loaded.model):
        for part in (module.lora_A[_NAME], module.lora_B[_NAME]):
            part.to(module.get_base_layer().weight.device, loaded.dtype)
    return _plain(config.to_dict()) | {"base_model_name_or_path": loaded.spec.known_base, "inference_mode": True}


def _check_targets(loaded: LoadedModel, targets: tuple[str, ...]) -> None:
    """Refuse names that no projection has: PEFT passes over them where others match."""
    output = loaded.model.get_output_embeddings()  # type: ignore[operator]
    for target in targets:
        found = [
            module
            for name, module in loaded.model.named_modules()
            if isinstance(module, nn.Linear) and (name == target or name.endswith(f".{target}"))
        ]
        if not found or output in found:
            raise ConfigError(
                f"training.target_modules names {target!r}, which is no projection of the model {loaded.spec.base}. "
                f"Expected names such as {', '.join(PROJECTIONS)}."
            )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of PEFT that JSON can hold, without those that are at rest."""

    def value(item: Any) -> Any:
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        return getattr(item, "value", item)  # enumerations

    return {key: value(item) for key, item in config.items() if item is not None and item != {} and item is not False}


def _lora_modules(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _lora_parameters(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in _lora_modules(model):
        for part in ("A", "B"):
            yield f"{name}.lora_{part}.weight", getattr(module, f"lora_{part}")[_NAME].weight
