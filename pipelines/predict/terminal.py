"""A prediction on a terminal, with the word on every table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.compare import formats
from pipelines.compare.prediction_model import Basis, Forecast, Point, Prediction
from pipelines.compare.terminal import bullet, table_of

__all__ = ["print_prediction"]


def print_prediction(prediction: Prediction, console: Console) -> None:
    """Print what each framework is predicted to do; readable from 100 columns up."""
    console.print()
    console.print(
        Text.assemble(
            ("PREDICTION, not a measurement", "bold red"),
            f"  {prediction.study or 'unnamed study'}  {prediction.study_id}, ",
            f"network: {prediction.network}",
        ),
        overflow="fold",
    )
    for forecast in prediction.forecasts:
        console.print()
        console.print(_table(forecast))
        console.print(Text(_basis(forecast.basis), style="dim"))
    console.print()
    for note in prediction.notes:
        console.print(bullet(note))


def _table(forecast: Forecast) -> Table:
    name = formats.title(forecast.framework, forecast.strategy)
    table = table_of(
        f"PREDICTED: {name}, {forecast.scaling} scaling",
        *("workers", "step", "examples/s", "efficiency", "95 % interval"),
        *("ring", "tree", "communication"),
    )
    for point in forecast.points:
        table.add_row(*_row(point))
    return table


def _row(point: Point) -> tuple[str, ...]:
    return (
        f"{point.workers:,}",
        formats.milliseconds(point.step_seconds),
        formats.rate(point.examples_per_second),
        formats.percent(point.efficiency),
        formats.percents(point.efficiency_interval95),
        *(formats.milliseconds(seconds) for seconds in point.all_reduce_seconds.values()),
        formats.percent(point.communication_share, 0),
    )


def _basis(basis: Basis) -> str:
    """What was measured, in one line."""
    lone = ", ".join(
        f"{formats.milliseconds(seconds)} at {size:g} examples"
        for size, seconds in sorted(basis.lone_step_seconds.items())
    )
    counts = ", ".join(map(str, basis.measured_workers))
    return (
        f"Measured on {basis.base_workers} and {counts} workers: step without communication "
        f"{lone} per worker; {basis.gradient_bytes:,} bytes of gradient; all-reduce "
        f"{1e6 * basis.latency_seconds:.0f} us a message and "
        f"{1e9 * basis.seconds_per_byte:.2f} ns a byte, within "
        f"{formats.percent(basis.link_residual, 0)}; hidden behind the backward pass "
        f"{formats.percent(basis.hidden_share, 0)} of the step without communication."
    )
