"""Distribution strategies, and the little that a run says between its workers."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.hardware import available_cores
from pipelines.worker import Worker

__all__ = ["build_strategy", "describe_software", "fence", "gather_over_workers"]

_SECONDS_TO_CONNECT = 10.0


def build_strategy(config: Config, worker: Worker) -> tf.distribute.Strategy:
    """The configured strategy, returned once all workers have met.

    ``TF_CONFIG`` describes the cluster. Under ``parameter_server`` this returns to the coordinator
    alone; the other processes serve it here until they are ended.

    Raises:
        InputError: if this machine or its cluster cannot train so.
    """
    builders = {
        "one_device": _one_device,
        "mirrored": _mirrored,
        "multi_worker_mirrored": _multi_worker_mirrored,
        "parameter_server": _parameter_server,
        "tpu": _tpu,
    }
    name = config.strategy("tf")
    strategy = builders[name](config, worker)
    found = strategy.num_replicas_in_sync
    asked = worker.all_replicas if worker.role == "worker" else 1  # asynchronous ones are alone
    if found != asked:
        raise InputError(
            f"tf.strategy: {name} finds devices for {found} replicas in step, but {asked} are to "
            "train so; let each process see as many GPUs as it trains replicas "
            "(CUDA_VISIBLE_DEVICES), or say how many it trains (--replicas)"
        )
    if name == "multi_worker_mirrored":
        gather_over_workers(strategy, np.zeros(1))
    return strategy


def gather_over_workers(
    strategy: tf.distribute.Strategy, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Every process's vector (n,), stacked by rank to (processes, n), in every process."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return values[np.newaxis].copy()

    # A process gives a row for each of its devices.
    stacked = _stacking(strategy)(tf.constant(values[np.newaxis]))
    return stacked.numpy()[:: len(strategy.extended.worker_devices)]


def fence(strategy: tf.distribute.Strategy) -> None:
    """Wait until this worker's devices, or the coordinator's workers, have finished."""
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        tf.distribute.coordinator.ClusterCoordinator(strategy).join()
        return
    for device in strategy.extended.worker_devices:
        with tf.device(device):
            if "TPU" in device:  # has no kernel for SyncDevice, but computes in order
                tf.zeros(()).numpy()
            else:
                tf.raw_ops.SyncDevice()


def describe_software() -> dict[str, str]:
    """Version of the framework and the class of build that runs here (``cpu``, ``cuda12``)."""
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "").partition(".")[0]
    return {
        "framework_version": f"tensorflow {tf.__version__}",
        "software_build": f"cuda{cuda}" if cuda and _gpus() else "cpu",
    }


@cache
def _stacking(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Kept, since tracing takes far longer than the collective."""

    @tf.function
    def stack(row: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(lambda: tf.identity(row)), axis=0)

    return stack


def _one_device(config: Config, worker: Worker) -> tf.distribute.Strategy:
    with suppress(RuntimeError):  # a process that has computed before keeps what it sees
        _take_gpus(worker)
    return tf.distribute.OneDeviceStrategy("GPU:0" if _gpus() else "CPU:0")


def _mirrored(config: Config, worker: Worker) -> tf.distribute.Strategy:
    """Over the first GPUs, or without any over parts of the CPU."""
    _refuse_nccl_without_gpu(config)
    if config.tf.collectives == "ring":
        raise InputError("tf.collectives: mirrored has no ring; use auto, or multi_worker_mirrored")
    gpus, replicas = _gpus(), worker.replicas
    if gpus and len(gpus) < replicas:
        raise InputError(
            f"tf.strategy: mirrored is to train {replicas} replicas, but finds {len(gpus)} GPUs; "
            "use fewer workers, or CPUs (training.device: cpu)"
        )
    if not gpus and replicas > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        tf.config.set_logical_device_configuration(cpu, parts)
    kind = "GPU" if gpus else "CPU"
    return tf.distribute.MirroredStrategy(
        [f"{kind}:{number}" for number in range(replicas)],
        tf.distribute.NcclAllReduce() if gpus else tf.distribute.ReductionToOneDevice(),
    )


def _multi_worker_mirrored(config: Config, worker: Worker) -> tf.distribute.Strategy:
    """A process per worker; without a GPU gradients go round in a ring, over gRPC."""
    _refuse_nccl_without_gpu(config)
    _take_gpus(worker)
    implementation = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementation(config.tf.collectives.upper())
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _parameter_server(config: Config, worker: Worker) -> tf.distribute.Strategy:
    """Asynchronous: a coordinator, workers that compute, and servers that hold the variables."""
    if worker.role == "worker":
        raise InputError(
            "tf.strategy: parameter_server needs a cluster of chief, workers and servers; start "
            "it with 'tandem train tf', or describe it in TF_CONFIG"
        )
    if config.tf.steps_per_call > 1:
        raise InputError(
            "tf.steps_per_call: under parameter_server every update is a call of its own; use 1"
        )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if worker.role == "server":
        if resolver.task_type == "worker":
            _take_gpus(worker)
        else:
            tf.config.set_visible_devices([], "GPU")
        tf.distribute.Server(
            resolver.cluster_spec(),
            job_name=resolver.task_type,
            task_index=resolver.task_id,
            protocol="grpc",
            config=tf.compat.v1.ConfigProto(
                # With as many threads as cores, which may be one, workers wait for each other
                # without end: a thread of a server is held by each worker that it serves.
                inter_op_parallelism_threads=max(len(available_cores()), worker.workers + 1)
            ),
        ).join()
    # The workers of its machine need the GPUs.
    tf.config.set_visible_devices([], "GPU")
    return tf.distribute.ParameterServerStrategy(resolver)


def _tpu(config: Config, worker: Worker) -> tf.distribute.Strategy:
    """All cores of a TPU, which one process feeds."""
    try:
        _refuse_closed_address(config.tf.tpu)
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=config.tf.tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ImportError, OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"tf.tpu: no TPU answers to {config.tf.tpu!r} ({reason}); name one that this machine "
            "reaches, or use another tf.strategy"
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def _refuse_closed_address(tpu: str) -> None:
    """TensorFlow would wait for it without end."""
    address = urlsplit(tpu)
    if address.scheme == "grpc":
        place = (address.hostname or "", address.port or 0)
        socket.create_connection(place, _SECONDS_TO_CONNECT).close()


def _refuse_nccl_without_gpu(config: Config) -> None:
    if config.tf.collectives == "nccl" and not _gpus():
        raise InputError("tf.collectives: nccl needs GPUs, and this machine has none; use auto")


def _take_gpus(worker: Worker) -> None:
    """A process that a launcher started beside others takes GPUs of its own."""
    gpus, place = _gpus(), os.environ.get("LOCAL_RANK")
    if not gpus or place is None:
        return
    first = int(place) * worker.replicas
    mine = gpus[first : first + worker.replicas]
    if len(mine) < worker.replicas:
        raise InputError(
            f"tf.strategy: worker {place} of this machine finds no GPU left of {len(gpus)}; use "
            "fewer workers, or CPUs (training.device: cpu)"
        )
    tf.config.set_visible_devices(mine, "GPU")


def _gpus() -> list[tf.config.PhysicalDevice]:
    return tf.config.list_physical_devices("GPU")
