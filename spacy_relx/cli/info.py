"""The command `info`: what a pipeline or a model block would load, and whether it is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import Debug, errors_as_messages, stderr, stdout
from spacy_relx.cli._pipeline import FACTORY, component_name, component_settings, load_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy_relx.engine.remote.spec import RemoteSpec
    from spacy_relx.engine.spec import ModelSpec

#: Bytes of a weight in memory. The 4-bit figure has the scales of its blocks.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "nf4": 0.55, "fp4": 0.55}


def info(
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", "-p", help="A spaCy pipeline with the component: its name or its folder."),
    ] = None,
    model_preset: Annotated[
        str | None, typer.Option(metavar="SmolLM2|Llama32GenTune", help="Or one of the models; SmolLM2 if left out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE.cfg", exists=True, dir_okay=False, help="Or a config."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show what would be loaded: model, adapter, device, memory, cache and licence.

    Nothing is fetched, and no weights are read.
    """
    with errors_as_messages(debug):
        if pipeline is not None and (model_preset is not None or config is not None):
            raise typer.BadParameter("--pipeline brings its own model; leave --model-preset and --config out.")
        nlp = load_pipeline(pipeline or "blank:en", component_settings(None, None, model_preset, config))
        facts = dict(_facts(nlp))
        if as_json:
            import srsly

            stdout().print(srsly.json_dumps(facts, indent=2))
            return
        notice, advice = facts.pop("notice"), facts.pop("name")
        width = max(map(len, facts))
        for name, value in facts.items():
            stdout().print(f"{name:<{width}}  {'-' if value is None else value}")
        if notice is not None:
            stdout().print(f"\n{notice}")
        if advice is not None:
            stderr().print(f"\n{advice}")


def _facts(nlp: Any) -> Iterator[tuple[str, Any]]:
    import torch

    import spacy_relx
    from spacy_relx.cache import cache_dir
    from spacy_relx.engine.remote.spec import RemoteSpec
    from spacy_relx.licences import advice_on_name

    name = component_name(nlp) or FACTORY
    shim = nlp.get_pipe(name)._shim
    yield "spacy-relx", spacy_relx.__version__
    yield "torch", str(torch.__version__)
    yield "pipeline", f"{nlp.lang}_{nlp.meta['name']}"
    yield "component", name
    if isinstance(shim.spec, RemoteSpec):
        yield from _served(shim.spec)
    else:
        yield from _loaded(shim.spec)
    yield "cache", str(cache_dir())
    yield "answers kept in", None if shim.cache is None else str(shim.cache.open().path)
    yield "notice", shim.notice
    yield "name", None if shim.notice is None else advice_on_name(nlp.meta["name"])


def _served(spec: RemoteSpec) -> Iterator[tuple[str, Any]]:
    """Facts of a model behind a server; nobody is asked."""
    import os

    key = spec.api_key_env
    yield "server", spec.base_url
    yield "model", spec.model
    yield "api", spec.api
    yield "tokenizer", "the server's" if spec.tokenizer is None else spec.tokenizer
    yield "key", None if key is None else f"in {key}" if os.environ.get(key) else f"not set: {key}"


def _loaded(spec: ModelSpec) -> Iterator[tuple[str, Any]]:
    """Facts of a model in this process; nothing is loaded."""
    from spacy_relx.engine.device import choose_device, choose_dtype
    from spacy_relx.errors import ModelError

    base = _local(spec, adapter=False)
    yield "model", spec.base
    yield "model on this machine", None if base is None else str(base)
    yield "adapter", spec.adapter
    if spec.adapter is not None:
        folder = _local(spec, adapter=True)
        yield "adapter on this machine", None if folder is None else str(folder)
    yield "quantization", spec.quantization
    try:
        device = choose_device(spec.device)
    except ModelError as error:
        yield "device", f"{spec.device}: {error}"
        dtype = None
    else:
        yield "device", str(device)
        dtype = str(choose_dtype(spec.dtype, device)).removeprefix("torch.")
        yield "dtype", dtype
    yield "weights in memory", None if base is None or dtype is None else _memory(base, spec.quantization, dtype)


def _local(spec: ModelSpec, *, adapter: bool) -> Path | None:
    """The folder or file that would be read, or None where it would have to be fetched or does not exist."""
    from dataclasses import replace

    from spacy_relx.engine.resolve import resolve_adapter, resolve_base
    from spacy_relx.engine.spec import EMBEDDED_BASE
    from spacy_relx.errors import ModelError
    from spacy_relx.fetch import embedded_folder

    offline = replace(spec, local_files_only=True)
    try:
        if adapter:
            return resolve_adapter(offline)
        path = Path(spec.base).expanduser()
        if path.is_file():
            return path  # a GGUF file, which is converted when it is loaded
        if spec.base == EMBEDDED_BASE:
            return embedded_folder()
        return resolve_base(offline)
    except ModelError:
        return None


def _memory(base: Path, quantization: str, dtype: str) -> str | None:
    """About how much memory the base's weights take, from the headers of its files."""
    from math import prod

    from spacy_relx.engine.checkpoint import read_header, weight_files
    from spacy_relx.errors import ModelError

    if not base.is_dir():
        return None
    try:
        tensors = {name: info for path in weight_files(base) for name, info in read_header(path).tensors.items()}
    except ModelError:
        return None
    n_bytes = 0.0
    for name, tensor in tensors.items():
        small = quantization != "none" and len(tensor.shape) == 2 and "embed" not in name and "lm_head" not in name
        n_bytes += prod(tensor.shape) * _BYTES[quantization if small else dtype]
    return f"about {n_bytes / 1e6:,.0f} MB"
