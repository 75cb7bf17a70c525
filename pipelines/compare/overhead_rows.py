"""What running each side costs, as lines of a table with the frameworks side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.compare import formats
from pipelines.compare.overhead_model import Overhead
from pipelines.strategies import Framework

__all__ = ["Line", "overhead_lines"]


@dataclass(frozen=True)
class Line:
    """A measure of both frameworks."""

    topic: str
    """What it is about; lines of one topic stand together."""
    label: str
    values: dict[Framework, str]
    """Written out; ``formats.UNKNOWN`` where it was not measured."""
    run_ids: dict[Framework, list[str]]
    """The runs behind it."""


_Told = tuple[str, Sequence[str]]
"""A figure written out, and its runs."""
_NOTHING: _Told = (formats.UNKNOWN, ())


def overhead_lines(overhead: Mapping[Framework, Overhead]) -> list[Line]:
    """All measures that some framework has, by topic."""
    told = {framework: dict(_told(side)) for framework, side in overhead.items()}
    keys = dict.fromkeys(key for measures in told.values() for key in measures)
    lines = []
    for topic, label in keys:
        found = {name: measures.get((topic, label), _NOTHING) for name, measures in told.items()}
        lines.append(
            Line(
                topic,
                label,
                {name: text for name, (text, _) in found.items()},
                {
                    name: [] if text == formats.UNKNOWN else [*runs]
                    for name, (text, runs) in found.items()
                },
            )
        )
    return [line for line in lines if any(line.run_ids.values())]


def _told(side: Overhead) -> Iterator[tuple[tuple[str, str], _Told]]:
    """Topic and label -> what is told, and by which runs."""

    def of(
        topic: str, runs: Sequence[str], **measures: str
    ) -> Iterator[tuple[tuple[str, str], _Told]]:
        for label, text in measures.items():
            yield (topic, label.replace("_", " ")), (text, runs)

    seconds, runs = formats.seconds, side.mlflow_run_ids
    yield from of(
        "Training run",
        runs,
        strategy=side.strategy,
        workers=formats.count(side.workers),
        wall_clock=seconds(side.wall_seconds),
        goodput=formats.percent(side.goodput_share),
        to_the_first_step=seconds(side.time_to_first_step_seconds),
    )
    used = side.resources
    yield from of(
        "Resources",
        runs,
        peak_memory=formats.mebibytes(used.peak_memory_bytes),
        sent_per_step=formats.kibibytes(used.network_bytes_per_step),
        CPU_per_million_examples=seconds(used.cpu_seconds_per_million_examples),
        energy_per_million_examples=_joules(used.joules_per_million_examples),
    )
    if side.recovery is not None:
        back = side.recovery
        yield from of(
            "Recovery",
            [back.mlflow_run_id],
            fault=back.fault or formats.UNKNOWN,
            noticed_after=seconds(back.notice_seconds),
            then_first_new_step_after=seconds(back.recovery_seconds),
            steps_done_again=formats.count(back.lost_steps),
        )
    if side.pipeline is not None:
        dag = side.pipeline
        cached = f" ({dag.cached_stages} cached)" if dag.cached_stages else ""
        yield from of(
            "Pipeline",
            dag.mlflow_run_ids,
            whole_DAG=f"{seconds(dag.seconds)}{cached}",
            work_of_components=seconds(dag.work_seconds),
            overhead=seconds(dag.overhead_seconds),
            of_it_starting_components=seconds(dag.startup_seconds),
            once_more_all_cached=seconds(dag.cached_rerun_seconds),
            processes_for_components=formats.count(dag.processes),
        )
    known = side.operation
    yield from of(
        "To know of",
        runs,
        processes_of_a_run=formats.count(known.processes),
        listening_ports=formats.count(known.listening_ports),
        environment_variables=formats.count(known.environment_variables),
    )
    yield from of(
        "To know of",
        [known.ledger_run_id] if known.ledger_run_id else [],
        configuration_fields=formats.count(known.config_fields),
        lines_of_manifests=formats.count(known.manifest_lines),
    )


def _joules(value: float | None) -> str:
    return formats.UNKNOWN if value is None else f"{value:,.0f} J"
