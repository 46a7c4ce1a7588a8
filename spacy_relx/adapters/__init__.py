"""The LoRA adapters that come with the package, each in a folder by its name, with a model card. No torch.

A name holds for good: another adapter gets another name, so that a config gives the same answers next year.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def packaged_adapter(name: str) -> Path | None:
    """The folder of a packaged adapter, or None if no packaged adapter has this name."""
    return _FOLDER / name if name in packaged_adapters() else None


def packaged_adapters() -> list[str]:
    """The names of the packaged adapters."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/adapter_config.json"))
