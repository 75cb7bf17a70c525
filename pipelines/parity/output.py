"""Writing a verdict to disk, whole or not at all."""

from pathlib import Path

from pipelines.parity.html import render_html
from pipelines.parity.model import Parity
from pipelines.whole_file import write_whole

__all__ = ["HTML_NAME", "JSON_NAME", "write_parity"]

JSON_NAME, HTML_NAME = "parity.json", "parity.html"


def write_parity(parity: Parity, output: Path) -> tuple[Path, Path]:
    """Write ``parity.html`` and ``parity.json`` into ``<output>/parity``; returns both paths."""
    folder = output / "parity"
    folder.mkdir(parents=True, exist_ok=True)
    html, data = folder / HTML_NAME, folder / JSON_NAME
    write_whole(html, render_html(parity))
    write_whole(data, parity.model_dump_json(indent=2) + "\n")
    return html, data
