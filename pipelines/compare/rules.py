"""Comparable or refused: runs that did not do the same work are never set side by side."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from pipelines.errors import ComparisonRefusedError
from pipelines.runs import (
    COMPARABLE_FIELDS,
    PARITY_FIELDS,
    PARITY_PASSED,
    PARITY_SIDE_FIELDS,
    RunRecord,
    batch_field,
    comparable_fields,
    shown,
)
from pipelines.strategies import ASYNCHRONOUS_STRATEGIES, FRAMEWORKS, Framework

__all__ = ["check_cells", "check_parity", "check_pipelines", "contradicts"]

NOT_RECORDED = "not recorded"


def check_cells(cells: Sequence[RunRecord]) -> None:
    """Let cells pass that agree in every comparable field; one left unrecorded is no agreement.

    Raises:
        ComparisonRefusedError: naming each field that differs, with its values by framework.
    """
    clauses, differences = _disagreements(cells, COMPARABLE_FIELDS)
    for scaling in sorted({run.params["scaling"] for run in cells}):
        alike = [run for run in cells if run.params["scaling"] == scaling]
        more, found = _disagreements(alike, [batch_field(scaling)])
        clauses += more
        differences |= found
    _refuse(clauses, differences)


def check_pipelines(pipelines: Sequence[RunRecord]) -> None:
    """Let pipelines pass that read the same dataset and agree in whatever else they recorded.

    Raises:
        ComparisonRefusedError: naming each field that differs, with its values by framework.
    """
    recorded = {field for run in pipelines for field in run.params}
    fields = [
        field
        for field in (*comparable_fields("weak"), "workers")
        if field == "dataset_fingerprint" or field in recorded
    ]
    _refuse(*_disagreements(pipelines, fields))


def check_parity(cells: Sequence[RunRecord], records: Iterable[RunRecord]) -> list[RunRecord]:
    """Let cells of both frameworks pass whose frameworks were shown to compute the same.

    Returns the verdicts that show it, which are of all ``records`` the newest that are meant for
    these cells. Cells of one framework need none, nor do asynchronous ones, which are not set
    against others.

    Raises:
        ComparisonRefusedError: if there is no such verdict, or it was not passed.
    """
    verdicts = sorted(
        (run for run in records if run.kind == "parity" and run.status == "FINISHED"),
        key=lambda run: run.start_time,
        reverse=True,
    )
    return [_verdict_for(needed, verdicts) for needed in _needed(cells)]


def contradicts(run: RunRecord, reference: RunRecord) -> bool:
    """Whether two runs both recorded some comparable field, and recorded it differently."""
    return any(
        run.params[field] != reference.params[field]
        for field in comparable_fields(reference.params.get("scaling", ""))
        if field in run.params and field in reference.params
    )


def _needed(cells: Sequence[RunRecord]) -> Iterator[dict[str, str]]:
    """What a verdict must be meant for: once for each kind of cell, TensorFlow's by PyTorch's."""
    for tf, torch in product(_sides(cells, "tf"), _sides(cells, "torch")):
        common = {field: cells[0].params.get(field, NOT_RECORDED) for field in PARITY_FIELDS}
        yield {**common, **dict(tf), **dict(torch)}


def _sides(cells: Sequence[RunRecord], framework: Framework) -> list[tuple[tuple[str, str], ...]]:
    found = {
        tuple(
            (f"{framework}_{field}", run.params.get(field, NOT_RECORDED))
            for field in PARITY_SIDE_FIELDS
        )
        for run in cells
        if run.params.get("framework") == framework
        and run.params.get("strategy") not in ASYNCHRONOUS_STRATEGIES
    }
    return sorted(found)


def _verdict_for(needed: dict[str, str], verdicts: Sequence[RunRecord]) -> RunRecord:
    """The newest verdict on what is needed; ``verdicts`` are sorted, newest first."""
    mend = "prove it with `tandem parity`"
    for run in verdicts:
        if all(run.params.get(field) == value for field, value in needed.items()):
            if run.metrics.get(PARITY_PASSED, 0) > 0:
                return run
            raise ComparisonRefusedError(
                "comparison refused: the frameworks were found to differ, by the verdict of "
                f"parity in run {run.run_id}; once that is mended, {mend}",
                {"parity": ["failed"]},
            )
    said = "no verdict of parity says that both frameworks compute the same"
    if verdicts:
        others = {
            field: verdicts[0].params.get(field, NOT_RECORDED)
            for field, value in needed.items()
            if verdicts[0].params.get(field) != value
        }
        differs = "; ".join(
            f"{field}: {shown(value)}, here {shown(needed[field])}"
            for field, value in others.items()
        )
        said = f"the newest verdict of parity was on something else ({differs})"
    raise ComparisonRefusedError(f"comparison refused: {said}; {mend}", {"parity": ["missing"]})


def _disagreements(
    runs: Sequence[RunRecord], fields: Iterable[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """What to say of each field in which runs do not agree, and its values."""
    differences: dict[str, list[str]] = {}
    clauses: list[str] = []
    if len(runs) < 2:
        return clauses, differences  # one run alone is reported, not compared
    for field in fields:
        values = {run.params.get(field, NOT_RECORDED) for run in runs}
        if len(values) > 1:
            clauses.append(f"{field} differs ({_by_framework(runs, field)})")
        elif values == {NOT_RECORDED}:
            clauses.append(f"{field} is not recorded, as by an older version; measure them again")
        else:
            continue
        differences[field] = sorted(values)
    return clauses, differences


def _refuse(clauses: list[str], differences: dict[str, list[str]]) -> None:
    if differences:
        raise ComparisonRefusedError(f"comparison refused: {'; '.join(clauses)}", differences)


def _by_framework(runs: Sequence[RunRecord], field: str) -> str:
    """Such as ``tf: 32, torch: 32 and 64``."""
    parts = []
    for framework in FRAMEWORKS:
        values = {
            run.params.get(field, NOT_RECORDED)
            for run in runs
            if run.params.get("framework") == framework
        }
        if values:
            parts.append(f"{framework}: {' and '.join(shown(value) for value in sorted(values))}")
    return ", ".join(parts)
