"""``tandem predict``: what a study's measurements say of worker counts that it has not measured."""

from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.cli.narrator import Narrator
from pipelines.config import Config
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.predict import Prediction

__all__ = ["parse_workers", "predict"]


def parse_workers(text: str) -> list[int]:
    """Worker counts from a list such as ``8,64,256``.

    Raises:
        InputError: if it is not one.
    """
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(
            f"--workers {text}: not a list of worker counts; write whole numbers from 1 up, such "
            "as 8,64,256"
        )
    return counts


def predict(
    config: Config,
    narrator: Narrator,
    workers: str,
    network: str | None = None,
    latency: str | None = None,
    study_name: str | None = None,
) -> "Prediction":
    """Predict from the latest study, and print it."""
    counts = parse_workers(workers)
    if network is None and latency is not None:
        raise InputError(f"--latency {latency}: of which network? give --network too")
    with narrator.task("predict") as task:
        from pipelines import tracking
        from pipelines.predict import parse_network, predict, print_prediction

        wire = None if network is None else parse_network(network, latency)
        if study_name is not None:
            config = config.model_copy(update={"name": study_name})
        prediction = predict(tracking.read_runs(config), counts, wire)
        task.outcome = f"study {prediction.study_id}; a prediction, not a measurement"
    print_prediction(prediction, Console(stderr=True))
    return prediction
