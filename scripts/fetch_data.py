"""Brings the data sets of `project.yml` to `assets/`, from their public addresses or from a local mirror.

The addresses stand in `project.yml` under `assets`, where `spacy project assets` reads them too. This script adds what
that command lacks: a folder that already holds the files (`--mirror`), a choice of data sets, and SHA-256, which
`assets.sha256` holds in the form of `sha256sum` (spaCy's own checksums are MD5).
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
import srsly
import typer
from rich.console import Console

console = Console(stderr=True)


def main(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("project.yml"),
    mirror: Annotated[str, typer.Option(help="A folder laid out like assets/; used before the network.")] = "",
    dataset: Annotated[str, typer.Option(help="Only this folder of assets/; default: all.")] = "",
) -> None:
    """Fetch every asset that is not here yet, and check all of them."""
    root = project.resolve().parent
    assets = [asset for asset in srsly.read_yaml(project)["assets"] if not dataset or _folder(asset) == dataset]
    if not assets:
        sys.exit(f"{project} has no assets in assets/{dataset}. Expected one of its data sets.")
    lines = (root / "assets.sha256").read_text().splitlines()
    expected = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    problems = (_bring(asset, root, mirror, expected[asset["dest"]]) for asset in assets)
    failed = [problem for problem in problems if problem is not None]
    for problem in failed:
        console.print(f"[red]{problem}[/red]")
    if failed:
        sys.exit(f"{len(failed)} of {len(assets)} files are missing. Nothing was left half-written; run it again.")
    console.print(f"{len(assets)} files are in {root / 'assets'}.")


def _folder(asset: dict[str, Any]) -> str:
    return Path(asset["dest"]).parts[1]


def _bring(asset: dict[str, Any], root: Path, mirror: str, expected: str) -> str | None:
    """Put one file in place; None if that went well, else what went wrong."""
    target = root / asset["dest"]
    if target.is_file() and _checksum(target) == expected:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    source = Path(mirror) / Path(asset["dest"]).relative_to("assets") if mirror else None
    try:
        if source is not None and source.is_file():
            shutil.copyfile(source, part)
        else:
            with (
                httpx.stream("GET", asset["url"], follow_redirects=True, timeout=60) as response,
                part.open("wb") as file,
            ):
                response.raise_for_status()
                for chunk in response.iter_bytes():
                    file.write(chunk)
        if _checksum(part) != expected:
            where = source if source is not None and source.is_file() else asset["url"]
            return f"{where} is not the file that was asked for: SHA-256 {_checksum(part)}, expected {expected}."
        part.replace(target)
    except (OSError, httpx.HTTPError) as error:
        return f"{asset['dest']}: {asset['url']} could not be had ({error!r}). With a local copy, use --mirror FOLDER."
    finally:
        part.unlink(missing_ok=True)
    return None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    typer.run(main)
