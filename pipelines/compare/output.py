"""Writing a report to disk, whole or not at all."""

from pathlib import Path

from pipelines.compare.html import render_html
from pipelines.compare.model import Report

__all__ = ["write_report", "write_whole"]


def write_report(report: Report, output: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a folder, made if it is not there.

    Returns:
        The two paths, in that order.
    """
    output.mkdir(parents=True, exist_ok=True)
    html, data = output / "report.html", output / "report.json"
    write_whole(html, render_html(report))
    write_whole(data, report.model_dump_json(indent=2) + "\n")
    return html, data


def write_whole(path: Path, text: str) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
