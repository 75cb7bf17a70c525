"""The state of a training run, written to a folder and read again, by ``tf.train.Checkpoint``."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from pipelines.worker import Worker

__all__ = ["load_state", "save_state"]

_PREFIX = "variables"


def save_state(
    folder: Path,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    worker: Worker,
    asynchronous: bool = False,
) -> Callable[[], None]:
    """Write model and optimiser, with its step and loss scale; all workers must do so together.

    What a layer draws from is a variable of the model. Returns what waits for the end, at once
    unless ``asynchronous``: then a copy is written while training goes on.
    """
    checkpoint = _checkpoint(model, optimizer)
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=asynchronous)
    if worker.is_chief:
        checkpoint.write(str(folder / _PREFIX), options)
        return checkpoint.sync
    # Reading a variable that each worker has a part of takes all of them, so the others write too,
    # to where nobody looks.
    scratch = tempfile.TemporaryDirectory()
    checkpoint.write(str(Path(scratch.name) / _PREFIX), options)

    def finish() -> None:
        checkpoint.sync()
        scratch.cleanup()

    return finish


def load_state(
    folder: Path,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    worker: Worker,
) -> None:
    """Read what ``save_state`` wrote, on as many workers or others; all must do so together."""
    status = _checkpoint(model, optimizer).read(str(folder / _PREFIX))
    status.assert_existing_objects_matched()


def _checkpoint(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> tf.train.Checkpoint:
    """Every variable by its place: Keras's names differ from one build to the next."""

    def numbered(variables: list[keras.Variable]) -> dict[str, tf.Variable]:
        return {str(number): variable.value for number, variable in enumerate(variables)}

    return tf.train.Checkpoint(
        model=numbered(model.variables), optimizer=numbered(optimizer.variables)
    )
