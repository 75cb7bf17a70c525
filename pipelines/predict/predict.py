"""From a study's runs to worker counts that it has not measured, each with an interval."""

from collections.abc import Sequence

import numpy as np

from pipelines.collectives import fit_link
from pipelines.compare.collect import Selection, select
from pipelines.compare.model import Interval
from pipelines.compare.prediction_model import Basis, Forecast, Point, Prediction
from pipelines.compare.rules import check_cells, check_parity
from pipelines.compare.statistics import percentile_interval
from pipelines.errors import InputError
from pipelines.predict.measured import Measured, anatomies_of, measurements
from pipelines.predict.model import StepModel, calibrate
from pipelines.predict.network import Network
from pipelines.predict.notes import notes
from pipelines.runs import RunRecord
from pipelines.strategies import WITHOUT_ALL_REDUCE

__all__ = ["predict", "predict_selected"]

_DRAWS = 999
_SEED = 20_240_229
_REAL = "real"
"""What runs record of a network that was not emulated."""


def predict(
    records: Sequence[RunRecord],
    workers: Sequence[int],
    network: Network | None = None,
    study_id: str | None = None,
) -> Prediction:
    """Predict the step of each worker count from the cells and anatomies of one study.

    Args:
        records: all runs of the study's experiment, in any order; strangers are ignored.
        workers: the worker counts to predict.
        network: what to predict it for; None means the network as it was measured.
        study_id: which execution of the study; None means the latest.

    Raises:
        InputError: if the study does not hold what a prediction rests on.
        ComparisonRefusedError: if the runs did not do the same work, or nothing shows that the
            frameworks compute the same.
    """
    selection = select(records, None if study_id is None else [study_id])
    if not selection.cells:
        raise InputError(
            f"study '{selection.title}' has no finished cell: `tandem study` measures some"
        )
    anatomies = anatomies_of(records, selection.study_ids)
    check_cells([*selection.cell_runs, *anatomies])
    check_parity(selection.cell_runs, records)
    return predict_selected(selection, anatomies, workers, network)


def predict_selected(
    selection: Selection,
    anatomies: Sequence[RunRecord],
    workers: Sequence[int],
    network: Network | None = None,
) -> Prediction:
    """The same from cells that have been found comparable, and their anatomies.

    Raises:
        InputError: if they do not hold what a prediction rests on.
    """
    known = selection.cell_runs[0].params
    if network is not None and known["network"] != _REAL:
        raise InputError(
            f"--network {network.name}: the study's own network ({known['network']}) is part of "
            "what it measured; leave the option out, or measure without network.hosts"
        )
    found = measurements(selection, anatomies)
    forecasts = [_forecast(measured, workers, network) for measured in found]
    return Prediction(
        study=known.get("study", ""),
        study_id=selection.title,
        network=network.name if network else "as measured",
        forecasts=forecasts,
        notes=notes(
            found,
            forecasts,
            network,
            left_out={key.strategy for key in selection.cells} & WITHOUT_ALL_REDUCE,
        ),
    )


def _forecast(measured: Measured, workers: Sequence[int], network: Network | None) -> Forecast:
    model = calibrate(measured)
    draws = _draw(measured)
    points = [
        _point(measured, model, draws, count, network)
        for count in sorted(set(workers))
        if count <= measured.global_batch_size(count)
    ]
    link, ratios = fit_link(measured.samples)
    basis = Basis(
        base_workers=measured.base.workers,
        measured_workers=[place.workers for place in measured.joint],
        gradient_bytes=measured.gradient_bytes,
        lone_step_seconds=model.lone_step.measured,
        latency_seconds=link.latency_seconds,
        seconds_per_byte=link.seconds_per_byte,
        link_residual=float(np.abs(ratios - 1).max()),
        hidden_share=model.hidden_share,
        extra_seconds=model.extra_seconds,
    )
    return Forecast(
        framework=measured.framework,
        strategy=measured.strategy,
        scaling=measured.scaling,
        points=points,
        basis=basis,
    )


_Draw = tuple[Measured, StepModel]


def _draw(measured: Measured) -> list[_Draw]:
    """Models of resampled measurements; none if a cell has one repeat, whose spread is unknown."""
    resting_on = [measured.base, *measured.joint]
    if any(len(measured.cells[place]) < 2 for place in resting_on):
        return []
    rng = np.random.default_rng(_SEED)
    _, ratios = fit_link(measured.samples)
    drawn = (measured.resampled(rng, ratios) for _ in range(_DRAWS))
    return [(each, calibrate(each, misfit=float(rng.choice(ratios)))) for each in drawn]


def _point(
    measured: Measured,
    model: StepModel,
    draws: Sequence[_Draw],
    workers: int,
    network: Network | None,
) -> Point:
    global_batch_size = measured.global_batch_size(workers)
    batch_size = global_batch_size / workers
    step_seconds = model.step_seconds(workers, batch_size, network)
    all_reduce = model.all_reduce_seconds(workers, network)
    steps = [each.step_seconds(workers, batch_size, network) for _, each in draws]
    efficiencies = [
        _efficiency(each, workers, step) for (each, _), step in zip(draws, steps, strict=True)
    ]
    exposed = model.exposed_seconds(workers, batch_size, network)
    return Point(
        workers=workers,
        global_batch_size=global_batch_size,
        step_seconds=step_seconds,
        step_seconds_interval95=_ends(steps),
        examples_per_second=global_batch_size / step_seconds,
        examples_per_second_interval95=_ends([global_batch_size / step for step in steps]),
        efficiency=_efficiency(measured, workers, step_seconds),
        efficiency_interval95=_ends(efficiencies),
        communication_share=exposed / step_seconds,
        algorithm=min(all_reduce, key=lambda algorithm: all_reduce[algorithm]),
        all_reduce_seconds=all_reduce,
    )


def _efficiency(measured: Measured, workers: int, step_seconds: float) -> float:
    throughput = measured.global_batch_size(workers) / step_seconds
    return throughput / measured.base_throughput / (workers / measured.base.workers)


def _ends(values: Sequence[float]) -> Interval | None:
    if not values:
        return None
    return percentile_interval(values)
