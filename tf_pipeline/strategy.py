"""Distribution strategies, and the little that a run says between its workers."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.worker import Worker

__all__ = ["build_strategy", "describe_software", "fence", "gather_over_workers"]


def build_strategy(name: str, worker: Worker) -> tf.distribute.Strategy:
    """The named strategy, returned once all workers have met.

    ``one_device``: one process. ``multi_worker_mirrored``: synchronous data parallelism over NCCL,
    or ring all-reduce over gRPC without a GPU; the cluster is ``TF_CONFIG``'s.
    """
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("GPU:0" if _has_gpu() else "CPU:0")
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    gather_over_workers(strategy, np.zeros(1))
    return strategy


def gather_over_workers(
    strategy: tf.distribute.Strategy, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Every worker's vector (n,), stacked by rank to (workers, n), on every worker."""

    @tf.function
    def stack() -> tf.Tensor:
        rows = strategy.run(lambda: tf.constant(values[np.newaxis]))
        return strategy.gather(rows, axis=0)

    return stack().numpy()


def fence(strategy: tf.distribute.Strategy) -> None:
    """Wait until this worker's devices have finished what was issued."""
    for device in strategy.extended.worker_devices:
        with tf.device(device):
            tf.raw_ops.SyncDevice()


def describe_software() -> dict[str, str]:
    """Version of the framework and the class of build that runs here (``cpu``, ``cuda12``)."""
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "").partition(".")[0]
    return {
        "framework_version": f"tensorflow {tf.__version__}",
        "software_build": f"cuda{cuda}" if cuda and _has_gpu() else "cpu",
    }


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
