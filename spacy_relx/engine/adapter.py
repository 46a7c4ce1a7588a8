"""Checks that a LoRA adapter belongs to a base model, before either is loaded.

PEFT only warns when an adapter's tensors find no place in a model, and then answers with the base model alone. Here
every key and every shape is compared with the model's own layers, and the first that does not fit is named. No torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.engine.checkpoint import TensorInfo, read_header, read_json, refuse_pickles
from spacy_relx.errors import AdapterMismatchError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: The safetensors metadata key under which an adapter's own facts are kept, as JSON.
METADATA_KEY = "spacy_relx"
_PREFIX = "base_model.model."
_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
#: Variants of LoRA that compute something else than W + scale * B A, or need more than these two tensors.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
_PLAIN_INITIALISATIONS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a base model, by name.

    Attributes:
        linear: `(out_features, in_features)` of each linear layer.
        parameters: Shape of each parameter.
        tied: Whether the output matrix is the embedding matrix.
        output: Name of the output layer.
        embedding: Name of the embedding layer.
    """

    linear: Mapping[str, tuple[int, int]]
    parameters: Mapping[str, tuple[int, ...]]
    tied: bool
    output: str = "lm_head"
    embedding: str = "model.embed_tokens"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on disk, as its files describe it.

    Attributes:
        folder: Where it is.
        config: Its `adapter_config.json`.
        tensors: Its tensors by key.
        metadata: The facts spacy-relx left in it (`base_fingerprint`, `threshold`, `schema`), or nothing.
        digest: SHA-256 of its weights and of the settings that change what they compute.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Any]
    digest: str

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return self.folder / WEIGHTS


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's settings and the header of its weights.

    Raises:
        UnsafeCheckpointError: If its weights are a pickle.
        ModelError: If files are missing or damaged.
        AdapterMismatchError: If it is not plain LoRA.
    """
    if not (folder / WEIGHTS).is_file():
        refuse_pickles(folder, "adapter")
        raise ModelError(f"{folder} is not a LoRA adapter: it holds no {WEIGHTS}. Expected that and {CONFIG}.")
    config = read_json(folder / CONFIG)
    header = read_header(folder / WEIGHTS)
    _require_plain_lora(folder, config)
    _check_forms(folder, config)
    try:
        metadata = parse_json(header.metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise ModelError(f"{folder / WEIGHTS} has damaged {METADATA_KEY!r} metadata: {error}.") from error
    if not isinstance(metadata, dict):
        raise ModelError(f"{folder / WEIGHTS} has {METADATA_KEY!r} metadata that is not a JSON object.")
    threshold = metadata.get("threshold")
    if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1):
        raise ModelError(f"{folder / WEIGHTS} names the threshold {threshold!r}. Expected a number in 0..1.")
    return Adapter(folder, config, header.tensors, metadata, _digest(folder, config))


def verify_adapter(
    adapter: Adapter, layers: Layers, targets: Callable[[str], bool], *, base: str, fingerprint: str
) -> None:
    """Check that each tensor of an adapter has its place in the base model, and that none is missing.

    Args:
        adapter: The adapter.
        layers: The base model's layers.
        targets: Whether the adapter's settings select the layer of this name.
        base: What the user named as the base, for the messages.
        fingerprint: The base's `base_fingerprint`.

    Raises:
        AdapterMismatchError: Naming the first key that does not fit, or the two fingerprints.
    """
    meant = adapter.config.get("base_model_name_or_path") or "not named"
    tail = f" The adapter was made for {meant}; the base used is {base}. Give the adapter that belongs to this base."
    ranks: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, info in adapter.tensors.items():
        if not key.startswith(_PREFIX):
            raise AdapterMismatchError(f"The adapter {adapter.folder} has the key {key!r}. Expected {_PREFIX}….{tail}")
        match = _LORA_KEY.fullmatch(key.removeprefix(_PREFIX))
        if match is None:
            _verify_full_tensor(adapter, key, info, layers, tail)
        elif match["module"] not in layers.linear:
            raise AdapterMismatchError(
                f"The adapter {adapter.folder} changes {match['module']!r} (key {key!r}), which is no linear layer "
                f"of the base model.{tail}"
            )
        else:
            ranks.setdefault(match["module"], {})[match["part"]] = info.shape
    if layers.tied and layers.output in ranks:
        raise AdapterMismatchError(
            f"The adapter {adapter.folder} changes {layers.output!r}, which this base shares with its embedding; the "
            f"two cannot be changed apart.{tail}"
        )
    for module, parts in ranks.items():
        _verify_pair(adapter, module, parts, layers.linear[module], tail)
    for module in layers.linear:
        if targets(module) and module not in ranks:
            raise AdapterMismatchError(
                f"The adapter {adapter.folder} lacks the key '{_PREFIX}{module}.lora_A.weight', which its "
                f"target_modules promise.{tail}"
            )
    for module in ranks:
        if not targets(module):
            raise AdapterMismatchError(
                f"The adapter {adapter.folder} has the key '{_PREFIX}{module}.lora_A.weight', but its target_modules "
                f"do not select that layer, so it would be ignored. Its files do not belong together.{tail}"
            )
    made_on = adapter.metadata.get("base_fingerprint")
    if made_on is not None and made_on != fingerprint:
        raise AdapterMismatchError(
            f"The adapter {adapter.folder} was trained on weights with the fingerprint {made_on}. Expected "
            f"{fingerprint}, that of the base in use.{tail}"
        )


def full_tensors(adapter: Adapter) -> dict[str, str]:
    """Return the keys of an adapter that replace a whole parameter, with the parameter's name in the base."""
    keys = {key: key.removeprefix(_PREFIX) for key in adapter.tensors}
    return {key: name for key, name in keys.items() if _LORA_KEY.fullmatch(name) is None}


def lora_tensors(adapter: Adapter) -> dict[str, tuple[str, str]]:
    """Return the keys of an adapter's low-rank tensors, with the layer's name and the part, `A` or `B`."""
    matches = {key: _LORA_KEY.fullmatch(key.removeprefix(_PREFIX)) for key in adapter.tensors}
    return {key: (match["module"], match["part"]) for key, match in matches.items() if match is not None}


def _verify_pair(
    adapter: Adapter, module: str, parts: dict[str, tuple[int, ...]], size: tuple[int, int], tail: str
) -> None:
    rank = _rank(adapter.config, module)
    for part, expected in (("A", (rank, size[1])), ("B", (size[0], rank))):
        key = f"{_PREFIX}{module}.lora_{part}.weight"
        got = parts.get(part)
        if got is None:
            raise AdapterMismatchError(f"The adapter {adapter.folder} lacks the key {key!r}.{tail}")
        if got != expected:
            raise AdapterMismatchError(
                f"The adapter {adapter.folder} does not fit: {key!r} has the shape {list(got)}. Expected "
                f"{list(expected)} (rank {rank}, a layer of {size[1]} inputs and {size[0]} outputs).{tail}"
            )


def _verify_full_tensor(adapter: Adapter, key: str, info: TensorInfo, layers: Layers, tail: str) -> None:
    name = key.removeprefix(_PREFIX)
    expected = layers.parameters.get(name)
    if expected is None and layers.tied and name == f"{layers.output}.weight":
        expected = layers.parameters.get(f"{layers.embedding}.weight")
    if expected is None:
        raise AdapterMismatchError(f"The adapter {adapter.folder} has the key {key!r}, unknown to the base.{tail}")
    if name.rpartition(".")[0] in layers.linear and name != f"{layers.output}.weight":
        raise AdapterMismatchError(
            f"The adapter {adapter.folder} replaces a whole layer ({key!r}). Expected low-rank tensors there; only "
            f"embeddings, norms and the output matrix may be replaced.{tail}"
        )
    if info.shape != expected:
        raise AdapterMismatchError(
            f"The adapter {adapter.folder} does not fit: {key!r} has the shape {list(info.shape)}. Expected "
            f"{list(expected)}.{tail}"
        )
    saved = adapter.config.get("modules_to_save") or []
    ends = {layers.output.rpartition(".")[2], layers.embedding.rpartition(".")[2]}
    if layers.tied and (name == f"{layers.output}.weight" or (ends & set(saved) and name.startswith(layers.embedding))):
        raise AdapterMismatchError(
            f"The adapter {adapter.folder} trains {name!r} by itself, but this base shares its embedding with its "
            f"output matrix, so one cannot be replaced without the other.{tail}"
        )


def _rank(config: dict[str, Any], module: str) -> int:
    """Return a layer's rank: that of the first matching pattern, else the adapter's.

    Source: PEFT's rule for `rank_pattern`; a pattern is a regular expression for the end of the name.
    """
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return int(rank)
    return int(config.get("r", 8))


def _require_plain_lora(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterMismatchError(f"The adapter {folder} is of the type {kind!r}. Expected 'LORA'.")
    for option in _UNSUPPORTED:
        if config.get(option):
            raise AdapterMismatchError(
                f"The adapter {folder} uses {option}={config[option]!r}, which is not plain LoRA. Expected an adapter "
                "without it; merge it into its base with peft and give the merged model as `base`."
            )
    if config.get("bias") not in (None, "none"):
        raise AdapterMismatchError(f"The adapter {folder} has bias={config['bias']!r}. Expected 'none'.")
    start = config.get("init_lora_weights")
    if not any(start == plain for plain in _PLAIN_INITIALISATIONS):
        raise AdapterMismatchError(
            f"The adapter {folder} was started with init_lora_weights={start!r}, which changes the base model too. "
            "Expected an adapter converted to plain LoRA (peft's save_pretrained with "
            "path_initial_model_for_weight_conversion)."
        )


def _check_forms(folder: Path, config: dict[str, Any]) -> None:
    """Refuse settings of another form than PEFT writes, before they are compared with a model."""
    ranks, targets, saved = config.get("rank_pattern"), config.get("target_modules"), config.get("modules_to_save")
    for name, value, is_right in (
        ("r", config.get("r", 8), _is_rank(config.get("r", 8))),
        ("rank_pattern", ranks, ranks is None or (isinstance(ranks, dict) and all(map(_is_rank, ranks.values())))),
        ("target_modules", targets, targets is None or isinstance(targets, str) or _are_names(targets)),
        ("modules_to_save", saved, saved is None or _are_names(saved)),
    ):
        if not is_right:
            raise AdapterMismatchError(
                f"The adapter {folder} has {name}={value!r}, which PEFT does not write. Fetch it again."
            )
    for pattern in (*(ranks or ()), *([targets] if isinstance(targets, str) else [])):
        try:
            re.compile(pattern)
        except re.error as error:
            raise AdapterMismatchError(
                f"The adapter {folder} has the pattern {pattern!r}, which is no regular expression: {error}. Fetch it "
                "again."
            ) from error


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _digest(folder: Path, config: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    with (folder / WEIGHTS).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    matter = {key: config.get(key) for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")}
    digest.update(json.dumps(matter, sort_keys=True).encode())
    return digest.hexdigest()
