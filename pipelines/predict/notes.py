"""Plain statements on what a prediction assumes, and what its intervals do not hold."""

from collections.abc import Collection, Iterable, Sequence

from pipelines.compare.formats import milliseconds, title
from pipelines.compare.prediction_model import Forecast
from pipelines.predict.measured import Measured
from pipelines.predict.network import Network

__all__ = ["notes"]

_WHOLE_GRADIENTS = frozenset({"multi_worker_mirrored", "ddp"})
"""Strategies that sum whole gradients; the others cut them into shards, and move more or less."""


def notes(
    found: Sequence[Measured],
    forecasts: Sequence[Forecast],
    network: Network | None,
    left_out: Collection[str],
) -> list[str]:
    """All statements that hold for this prediction.

    ``found`` and ``forecasts`` go by pairs; ``left_out`` are strategies of the study.
    """
    return [
        *_general(forecasts, network),
        *(
            f"{strategy} is left out: its workers do not meet in an all-reduce."
            for strategy in sorted(left_out)
        ),
        *(note for pair in zip(found, forecasts, strict=True) for note in _of_one(*pair, network)),
    ]


def _general(forecasts: Sequence[Forecast], network: Network | None) -> Iterable[str]:
    yield (
        "Everything above is predicted, nothing measured. The intervals hold the spread of the "
        "repeats and of the measured all-reduces; they do not hold stragglers, congestion, other "
        "topologies than one link per worker, or that a larger machine computes otherwise."
    )
    most = max(max(each.basis.measured_workers) for each in forecasts)
    yield f"Communication was measured on up to {most} workers; farther is less certain."
    yield (
        "Each worker count takes the faster of ring and tree, as NCCL does. The measured "
        "all-reduces count as rings, which those of gloo and of TensorFlow on CPUs are."
    )
    if network is not None and network.latency_seconds == 0:
        yield "The wire adds no latency to the measured one; --latency gives it some."


def _of_one(measured: Measured, forecast: Forecast, network: Network | None) -> Iterable[str]:
    name, basis = f"{title(forecast.framework, forecast.strategy)}", forecast.basis
    if network is not None and basis.seconds_per_byte > network.seconds_per_byte:
        yield (
            f"{name}: a byte costs {basis.seconds_per_byte / network.seconds_per_byte:,.1f} times "
            "as much in software, as measured, as on the wire, which therefore changes nothing."
        )
    if basis.extra_seconds > 0:
        yield (
            f"{name}: the measured cells wait {milliseconds(basis.extra_seconds)} a step beyond "
            "their all-reduce, for other collectives and slower workers; every prediction has the "
            "same added."
        )
    if any(len(measured.cells[place]) < 2 for place in [measured.base, *measured.joint]):
        yield f"{name}: a cell with 1 repeat has no spread, so there are no intervals."
    if measured.scaling == "strong":
        yield from _of_strong_scaling(name, forecast)
    if measured.strategy not in _WHOLE_GRADIENTS:
        yield (
            f"{name} moves shards, not whole gradients: beyond the measured worker counts its "
            "communication is predicted as an all-reduce, which it is not."
        )
    if "compression" in measured.strategy_options:
        yield f"{name} compresses its gradients, which the prediction takes for whole ones."


def _of_strong_scaling(name: str, forecast: Forecast) -> Iterable[str]:
    sizes = sorted(forecast.basis.lone_step_seconds)
    if len(sizes) == 1:
        yield (
            f"{name}, strong scaling: one batch per worker was measured, so the computation is "
            "taken to shrink in proportion with it. Small batches do not: some of each step is "
            "fixed."
        )
    else:
        yield (
            f"{name}, strong scaling: the computation follows a line through "
            f"{len(sizes)} measured batches per worker ({sizes[0]:g} to {sizes[-1]:g} examples)."
        )
    yield f"{name}, strong scaling: worker counts beyond the global batch are left out."
