"""Where an ingestion runs: this process, Dask, or a cluster that Apache Beam knows.

The runner decides how fast a dataset is written, never what is in it.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.data_config import RunnerConfig
from pipelines.errors import InputError, WorkError
from pipelines.ingest.runner_options import check_options

__all__ = ["started_runner"]

_BEAM_NAMES = {
    # Beam's "DirectRunner" first tries to download a runner written in Go; this is the one in
    # Python that it falls back to.
    "direct": "FnApiRunner",
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
_DASK_TASKS = 512
"""Into which Dask cuts the fragments at most; Beam would make one task of 128 of them."""
_DASK_ANSWERS_WITHIN = "10s"
_LEAVE_INTERRUPTS_TO_THE_PARENT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_WORKERS_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"


@contextmanager
def started_runner(config: RunnerConfig, fragments: int) -> Iterator[tuple[str, PipelineOptions]]:
    """Beam's name of the runner and its options, its local processes alive while the block runs.

    Raises:
        InputError: if the runner or its options are wrong, or what it needs is not installed.
        WorkError: if a Dask worker died.
    """
    options = check_options(config)
    arguments = list(config.options)
    workers = max(1, min(config.workers or len(os.sched_getaffinity(0)), fragments))
    with ExitStack() as stack:
        if config.name == "direct":
            # It logs what a worker raised several times over, and raises it too.
            logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
            mode = "multi_threading" if workers > 1 else "in_memory"
            arguments += [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        elif config.name == "dask":
            arguments += stack.enter_context(_dask(options, workers))
            if not (options["npartitions"] or options["partition_size"]):
                arguments.append(f"--dask_npartitions={max(1, min(fragments, _DASK_TASKS))}")
        yield _BEAM_NAMES[config.name], PipelineOptions(arguments)


@contextmanager
def _dask(options: dict[str, Any], workers: int) -> Iterator[list[str]]:
    """What leads Beam to the cluster that the options name, else to one of this machine."""
    import dask
    from distributed import KilledWorker, LocalCluster, default_client

    with ExitStack() as stack:
        stack.enter_context(_quiet_dask())
        arguments: list[str] = []
        if options["address"] or options["scheduler_file"]:
            _check_cluster(options)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-dask-"))
            stack.enter_context(dask.config.set({"temporary-directory": folder}))
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    silence_logs=logging.CRITICAL,
                    preload=[_LEAVE_INTERRUPTS_TO_THE_PARENT],
                    dashboard_address=None,
                    # Else it takes port 8787, dashboard or not.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                )
            )
            arguments.append(f"--dask_client_address={cluster.scheduler_address}")
        try:
            yield arguments
        except KilledWorker:
            raise WorkError(
                "data.runner: a Dask worker died over and over, perhaps for want of memory; take "
                "fewer data.runner.workers, or larger ones"
            ) from None
        finally:
            # Beam opens a client and never closes it.
            with suppress(ValueError):
                default_client().close()


def _check_cluster(options: dict[str, Any]) -> None:
    from distributed import Client

    place = options["address"] or options["scheduler_file"]
    where = {name: options[name] for name in ("address", "scheduler_file") if options[name]}
    try:
        with Client(**where, timeout=_DASK_ANSWERS_WITHIN, set_as_default=False) as client:
            client.run(import_module, __name__)
    except ImportError as error:
        raise InputError(
            f"data.runner.options: the Dask workers of {place} cannot import Tandem ({error}); "
            "install it there, in this version"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"data.runner.options: no Dask scheduler answers at {place}: {error}"
        ) from None


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep Dask's logs of every connection and every shutdown off the user's terminal."""
    import dask

    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with dask.config.set(
            {
                f"{_WORKERS_ENVIRONMENT}.DASK_LOGGING__{name}": "critical"
                for name in ("DISTRIBUTED", "ROOT")
            }
        ):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
