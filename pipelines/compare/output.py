"""Writing a report to disk, whole or not at all."""

from pathlib import Path

from pipelines.compare.html import render_html
from pipelines.compare.markdown import render_markdown
from pipelines.compare.model import Report
from pipelines.whole_file import write_whole

__all__ = ["write_report"]


def write_report(report: Report, output: Path) -> tuple[Path, Path, Path]:
    """Write ``report.html``, ``report.json`` and ``report.md`` into a folder, made if need be.

    Returns:
        The three paths, in that order.
    """
    output.mkdir(parents=True, exist_ok=True)
    html, data, comment = (output / f"report.{suffix}" for suffix in ("html", "json", "md"))
    write_whole(html, render_html(report))
    write_whole(data, report.model_dump_json(indent=2) + "\n")
    write_whole(comment, render_markdown(report))
    return html, data, comment
