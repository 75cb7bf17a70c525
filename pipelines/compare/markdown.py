"""The report's conclusions as Markdown, short enough for a comment on a pull request."""

import jinja2

from pipelines.compare import formats
from pipelines.compare.model import Report

__all__ = ["render_markdown"]


def render_markdown(report: Report) -> str:
    """Findings, verdicts, cells and notes; what a table's cell holds never breaks its row."""
    environment = jinja2.Environment(  # noqa: S701  Markdown, whose own signs are escaped below
        loader=jinja2.PackageLoader("pipelines", "compare"),
        undefined=jinja2.StrictUndefined,
        finalize=_in_one_cell,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    points = {
        (point.framework, point.strategy, point.scaling, point.workers): point.efficiency
        for point in report.scaling
    }
    efficiency = [
        points.get((cell.framework, cell.strategy, cell.scaling, cell.workers))
        for cell in report.cells
    ]
    template = environment.get_template("report.md.j2")
    return template.render(report=report, efficiency=efficiency, f=formats)


def _in_one_cell(value: object) -> object:
    """Names and messages come from runs, which may hold anything."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split()).replace("|", "\\|")
    return text.replace("<", "&lt;")
