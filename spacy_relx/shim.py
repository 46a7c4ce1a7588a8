"""What stands for an engine in a thinc model: loaded at first use, copied and saved without the base's weights."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
import weakref
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly
from thinc.shims import Shim

from spacy_relx.engine.cached import CachedEngine, CacheSettings
from spacy_relx.engine.spec import ENGINES, ModelSpec
from spacy_relx.errors import ConfigError
from spacy_relx.licences import notice_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinc.api import Model

    from spacy_relx.engine.cached import ComputingEngine
    from spacy_relx.engine.packed import PackedEngine
    from spacy_relx.engine.reference import ReferenceEngine
    from spacy_relx.training.session import TrainingSession
    from spacy_relx.training.settings import TrainingSettings

#: Files of a LoRA adapter that a saved pipeline carries along.
_ADAPTER_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")


class EngineShim(Shim):  # type: ignore[misc]
    """Stands for an engine in a thinc model: loads it lazily, and leaves the weights out of whatever is copied.

    Args:
        spec: What to load.
        engine: "packed" or "reference".
        max_pack_tokens: Most tokens of a pack; None: by device.
        deterministic: Never let documents share a pack, so that a document's scores do not depend, in the last digits,
            on what travels with it. On a processor this is always so.
        family: The models that the architecture is for, where its name says so; what they are licensed under goes with
            a saved pipeline.

    Attributes:
        cache: Where answers are kept from one run to the next; None: nowhere.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engine: str = "packed",
        max_pack_tokens: int | None = None,
        deterministic: bool = False,
        family: str | None = None,
    ) -> None:
        super().__init__(None)
        if engine not in ENGINES:
            raise ConfigError(f"model.engine is {engine!r}. Expected one of {', '.join(ENGINES)}.")
        is_number = isinstance(max_pack_tokens, int) and not isinstance(max_pack_tokens, bool)
        if max_pack_tokens is not None and (not is_number or max_pack_tokens < 1):
            raise ConfigError(f"model.max_pack_tokens is {max_pack_tokens!r}. Expected a positive number, or null.")
        self.spec = spec
        self.engine_name = engine
        self.max_pack_tokens = max_pack_tokens
        self.deterministic = deterministic
        self.family = family
        self.cache: CacheSettings | None = None
        self._engine: ComputingEngine | CachedEngine | None = None
        self._adapter_copy: Path | None = None  # a folder of ours, removed with this object
        self._training: TrainingSession | None = None
        self._trainable = False
        self._lock = threading.Lock()

    @property
    def notice(self) -> str | None:
        """What the model's licence wants to go with it, where it wants anything."""
        return notice_for(self.spec, self.family)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._engine is not None

    @property
    def engine(self) -> ComputingEngine | CachedEngine:
        """The engine; the first use loads the weights."""
        with self._lock:
            self._prepare_process()
            if self._engine is None:
                engine = self._load()
                self._engine = engine if self.cache is None else CachedEngine(engine, self.cache.open())
            return self._engine

    def _prepare_process(self) -> None:
        """Keep torch to one thread in a worker process.

        A forked one may have got a loaded engine from its parent, so this comes before every use.
        """
        from spacy_relx.engine.workers import prepare_worker

        prepare_worker(self.spec.device if self._engine is None else self._engine.device.type)

    def _load(self) -> ComputingEngine:
        from spacy_relx.engine.loading import load_model
        from spacy_relx.engine.select import make_engine

        loaded = load_model(self.spec, trainable=self._trainable)
        return make_engine(loaded, self.engine_name, self.max_pack_tokens)  # type: ignore[arg-type]

    def check_use(self, top_k: int, scoring: str, decoding: str) -> None:
        """Refuse what the model cannot do, before it is loaded: nothing here, something for a model on a server."""

    @property
    def computing_engine(self) -> PackedEngine | ReferenceEngine:
        """The engine without its answer cache; the first use loads the weights."""
        engine = self.engine
        return engine.engine if isinstance(engine, CachedEngine) else engine  # type: ignore[return-value]

    def use_adapter(self, folder: Path) -> None:
        """Take the adapter from another folder from now on."""
        self.spec = dataclasses.replace(self.spec, adapter=str(folder), adapter_revision=None)
        self._engine = self._training = None

    @property
    def training(self) -> TrainingSession | None:
        """The adapter in training, once `start_training` was called."""
        return self._training

    def start_training(self, settings: TrainingSettings) -> TrainingSession:
        """Put a new adapter on the model, or go on with the one that it has; loads the weights.

        Raises:
            TrainingError: If the model cannot be trained on packs.
        """
        from spacy_relx.training.session import TrainingSession

        if self._training is None:
            if self._engine is not None and (
                self._engine.loaded.adapter_info.get("merged") or self.spec.quantization != "none"
            ):
                self._engine = None  # it was loaded for answers alone
            self.spec = dataclasses.replace(self.spec, merge_adapter=False)
            self._trainable = True
            self._training = TrainingSession(self.computing_engine, settings, self.id)
        return self._training

    def end_training(self) -> None:
        """Drop an adapter that was trained in this process; the one that the model block names is there again."""
        if self._training is not None:
            self._engine = self._training = None

    def adapter_files(self) -> dict[str, bytes]:
        """The files of the adapter if it is in training, packaged or a local folder; the Hub's are known by name."""
        from spacy_relx.engine.resolve import local_adapter, resolve_adapter

        folder = local_adapter(self.spec)
        if self._training is not None and self.spec.adapter is not None:
            folder = resolve_adapter(self.spec)  # its tokenizer and template go with what was trained on
        files: dict[str, bytes] = {}
        if folder is not None:
            paths = (path for pattern in _ADAPTER_FILES for path in sorted(folder.glob(pattern)))
            files = {path.name: path.read_bytes() for path in paths}
        if self._training is not None:
            files |= self._training.weights.files()
        return files

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # A folder that this process removes at its end would be gone for the copy, so the files travel themselves.
        # So do those of an adapter in training, which are in no folder.
        files = self.adapter_files() if self._adapter_copy is not None or self._training is not None else {}
        for name in ("_lock", "_engine", "_adapter_copy", "_training"):
            del state[name]
        return {**state, "_files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files")
        self.__dict__.update(state)
        self._engine, self._adapter_copy, self._training, self._lock = None, None, None, threading.Lock()
        if files:
            self._take_files(files)

    def to_bytes(self) -> bytes:
        """Serialise what is needed to load the same numbers elsewhere; the base's weights are not included."""
        data: bytes = srsly.msgpack_dumps({"spec": self.spec.to_dict(), "files": self.adapter_files()})
        return data

    def from_bytes(self, data: bytes) -> EngineShim:
        """Take the adapter from bytes. The base, device and number format stay what the config says."""
        message = srsly.msgpack_loads(data)
        if message["files"]:
            self._take_files(message["files"])
        return self

    def _take_files(self, files: dict[str, bytes]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="spacy-relx-adapter-"))
        self._adapter_copy = folder
        weakref.finalize(self, _remove, folder, os.getpid())
        for name, content in files.items():
            (folder / Path(name).name).write_bytes(content)
        self.use_adapter(folder)

    # thinc asks every shim for these.

    def to_device(self, device_type: str, device_id: int) -> None:
        """Nothing to do: the device is a setting of the model block."""

    def finish_update(self, optimizer: Any) -> None:
        """Let an optimiser change the adapter, if it is in training."""
        if self._training is not None:
            self._training.finish_update(optimizer)

    @contextmanager
    def use_params(self, params: Any) -> Iterator[None]:
        """Compute with averaged parameters, if the adapter is in training."""
        with self._training.use_params(params) if self._training is not None else nullcontext():
            yield


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker ends without taking the parent's files with it
        shutil.rmtree(folder, ignore_errors=True)


def engine_shim(model: Model) -> EngineShim:
    """The shim of a model made by one of the registered architectures.

    Raises:
        ConfigError: If the model was made by another architecture.
    """
    for shim in getattr(model, "shims", ()):
        if isinstance(shim, EngineShim):
            return shim
    raise ConfigError(
        f"The model block gives {getattr(model, 'name', model)!r}. Expected one of the architectures "
        "spacy-relx.SmolLM2.v1, spacy-relx.Llama32GenTune.v1, spacy-relx.CausalLM.v1 or spacy-relx.OpenAICompatible.v1."
    )
