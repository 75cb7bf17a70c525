"""What ``tandem predict --json`` prints: predictions, and the measurements that they rest on."""

from pipelines.collectives import Algorithm
from pipelines.compare.part import Interval, Part
from pipelines.strategies import Framework

__all__ = ["Basis", "Forecast", "Point", "Prediction"]


class Point(Part):
    """One worker count, predicted. Nothing here has been measured."""

    workers: int
    global_batch_size: int
    """Examples in one step over all workers."""
    step_seconds: float
    step_seconds_interval95: Interval | None
    """95 % of the draws; null where a cell that it rests on had one repeat."""
    examples_per_second: float
    examples_per_second_interval95: Interval | None
    efficiency: float
    """Throughput over the base case's measured one, divided by the workers' ratio; 1 is ideal."""
    efficiency_interval95: Interval | None
    communication_share: float
    """The part of the step in which it waits for communication."""
    algorithm: Algorithm
    """The faster of both, which all figures above are for."""
    all_reduce_seconds: dict[Algorithm, float]
    """One all-reduce of the gradient, whether or not it is hidden behind the backward pass."""


class Basis(Part):
    """The measured figures behind a prediction, medians over the repeats."""

    base_workers: int
    """Worker count of the base case: the smallest that finished."""
    measured_workers: list[int]
    """Those of two or more workers, from which communication is known."""
    gradient_bytes: int
    lone_step_seconds: dict[float, float]
    """Examples per worker -> seconds of a worker's step without any communication."""
    latency_seconds: float
    """alpha, as measured."""
    seconds_per_byte: float
    """beta, as measured."""
    link_residual: float
    """The largest distance of a measured all-reduce from the two figures, as a share."""
    hidden_share: float
    """How much of an all-reduce passes during the backward pass, as a share of the lone step."""
    extra_seconds: float
    """What a step waits beyond the all-reduce: its other collectives, and slower workers."""


class Forecast(Part):
    """One framework and strategy under one kind of scaling."""

    framework: Framework
    strategy: str
    scaling: str
    points: list[Point]
    basis: Basis


class Prediction(Part):
    """What a study's measurements say of worker counts that it has not measured."""

    study: str
    study_id: str
    network: str
    """What it is predicted for; ``as measured`` if nothing was asked for."""
    forecasts: list[Forecast]
    notes: list[str]
    """What the figures assume, and what the intervals do not hold."""
