"""How a relation extractor travels: to disk, to bytes, in a pickle, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import srsly

from spacy_relx._json import parse_json
from spacy_relx.errors import ConfigError
from spacy_relx.licences import NOTICE_FILE, warn_of_name
from spacy_relx.prompts import GenTunePrompt
from spacy_relx.schema import Schema
from spacy_relx.trainable import Course

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.settings import Settings
    from spacy_relx.shim import EngineShim


class SavedRelations:
    """What makes a relation extractor savable. The base's weights stay where they are; a local adapter goes along."""

    name: str
    settings: Settings
    _builder: Any

    if TYPE_CHECKING:

        @property
        def schema(self) -> Schema: ...  # noqa: D102

        @property
        def _shim(self) -> EngineShim: ...

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save labels, wording and a local adapter, so that the pipeline works on another machine."""
        path = Path(path)
        files = self._shim.adapter_files()  # read first: `path` may be the folder they were loaded from
        path.mkdir(parents=True, exist_ok=True)
        srsly.write_json(path / "settings.json", self._saved())
        if self._shim.notice is not None:
            (path / NOTICE_FILE).write_text(f"{self._shim.notice}\n", encoding="utf8")
            warn_of_name(path.parent / "meta.json")  # spaCy writes it before the components, which do not know it
        else:
            (path / NOTICE_FILE).unlink(missing_ok=True)
        # The folder may hold the adapter of a pipeline that was saved there before; it would win when this is loaded.
        for old in (path / "adapter").glob("*"):
            if old.name not in files:
                old.unlink()
        if files:
            (path / "adapter").mkdir(exist_ok=True)
            for name, content in files.items():
                (path / "adapter" / name).write_bytes(content)
        elif (path / "adapter").is_dir():
            (path / "adapter").rmdir()

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Load what `to_disk` saved; it wins over files that the config names."""
        path = Path(path)
        try:
            saved = parse_json((path / "settings.json").read_text(encoding="utf8"))
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        self._take_saved(saved)
        if (path / "adapter").is_dir():
            self._shim.use_adapter((path / "adapter").resolve())
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Save as `to_disk` does, to bytes."""
        data: bytes = srsly.msgpack_dumps({"settings": self._saved(), "model": self._shim.to_bytes()})
        return data

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Load what `to_bytes` saved."""
        try:
            message = srsly.msgpack_loads(data)
            settings, model = message["settings"], message["model"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        self._take_saved(settings)
        self._shim.from_bytes(model)
        return self

    def _saved(self) -> dict[str, Any]:
        return {"schema": self.schema.to_dict(), "prompt": self.settings.prompt.to_dict()}

    def _take_saved(self, saved: dict[str, Any]) -> None:
        try:
            schema, prompt = Schema.from_dict(saved["schema"]), GenTunePrompt.from_dict(saved["prompt"])
            if not all(isinstance(text, str) for text in (prompt.system, prompt.user, prompt.cue)):
                raise TypeError("a text of the prompt is no string")
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error
        self.settings = replace(self.settings, schema=schema, prompt=prompt)
        self._builder = None

    def _damaged(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"What was saved of the component {self.name!r} is damaged ({error!r}). Expected the schema and the "
            "wording that to_disk and to_bytes write; save the pipeline again."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes are sent pickles. The prompt builder holds a tokenizer of megabytes and is made anew.
        # So is the course of a training run, which ends with the process that trains.
        return _restore, (type(self), self.name, {**self.__dict__, "_builder": None, "_course": Course()})


def _restore(kind: type[SavedRelations], name: str, state: dict[str, Any]) -> SavedRelations:
    component = kind.__new__(kind)
    component.name = name
    component.__dict__.update(state)
    return component
