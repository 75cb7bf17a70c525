"""What the report holds of a scaling law: its parameters, their intervals, and its curve."""

from pipelines.compare.part import Interval, Part

__all__ = ["Law", "LawPoint"]


class LawPoint(Part):
    """The law's throughput at one worker count."""

    workers: int
    throughput: float
    """Examples per second over all workers."""
    interval95: Interval | None
    """Bootstrap 95 % interval; null where a worker count had one repeat."""


class Law(Part):
    """The Universal Scalability Law fitted to one framework's throughputs (Gunther, 2007).

    X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1))

    Intervals are null where a worker count had one repeat.
    """

    base_throughput: float
    """lambda: what one worker trains, examples per second."""
    base_throughput_interval95: Interval | None
    contention: float
    """sigma: the share of the work that one worker at a time can do, 0 to 1."""
    contention_interval95: Interval | None
    coherency: float
    """kappa: the cost of each pair of workers keeping in step, in units of one worker's work."""
    coherency_interval95: Interval | None
    peak_workers: float | None
    """sqrt((1 - sigma) / kappa), at least 1: beyond it throughput falls. Null: it never does."""
    peak_workers_interval95: tuple[float | None, float | None] | None
    """An end is null where throughput never falls in the resamples it stands for."""
    largest_residual: float
    """The largest distance of a measured median from the law, as a share of the median."""
    curve: list[LawPoint]
    """By workers."""

    def throughput(self, workers: float) -> float:
        """Examples per second at any worker count."""
        contention = self.contention * (workers - 1)
        coherency = self.coherency * workers * (workers - 1)
        return self.base_throughput * workers / (1 + contention + coherency)
