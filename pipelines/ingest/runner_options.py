"""A runner's options, checked before anything runs: Beam itself ignores those it does not know."""

import argparse
import difflib
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NoReturn

from apache_beam import __version__ as beam_version
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.data_config import RunnerConfig
from pipelines.errors import InputError

__all__ = ["check_options"]

_FIELD = "data.runner.options"
_OWN_FIELDS = {
    "--runner": "data.runner.name",
    "--direct_num_workers": "data.runner.workers",
    "--direct_running_mode": "data.runner.workers",
}
_JOB_SERVER = ("flink", "spark")
"""Runners that Beam reaches by a job server in Java, which has options of its own."""
_REQUIRED: dict[str, list[tuple[str, ...]]] = {
    "flink": [("--flink_master=HOST:PORT", "--job_endpoint=HOST:PORT")],
    "spark": [
        ("--spark_master_url=spark://HOST:PORT", "--spark_rest_url=URL", "--job_endpoint=HOST:PORT")
    ],
    "dataflow": [
        ("--project=NAME",),
        ("--region=NAME",),
        ("--temp_location=gs://BUCKET/FOLDER",),
    ],
}
"""Runner -> options; of each tuple, one."""


def check_options(config: RunnerConfig) -> dict[str, Any]:
    """The options of ``data.runner`` as Beam understands them: name -> value, defaults included.

    Raises:
        InputError: naming the option that is unknown, wrong, or missing, or the software that is.
    """
    given = {option.partition("=")[0] for option in config.options if option.startswith("--")}
    _refuse_misplaced(config, given)
    _refuse_uninstalled(config)
    parser = _Parser(allow_abbrev=False, add_help=False)
    if config.name == "dask":
        # Its options are known to Beam once it is imported.
        import apache_beam.runners.dask.dask_runner  # noqa: F401
    for options in {str(each): each for each in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    values, unknown = parser.parse_known_args(config.options)
    _refuse_unknown(config.name, unknown, list(parser._option_string_actions))
    for choices in _REQUIRED.get(config.name, []):
        if not given & {choice.partition("=")[0] for choice in choices}:
            raise InputError(f"{_FIELD}: {config.name} needs {' or '.join(choices)}")
    if config.name in _JOB_SERVER and not values.job_endpoint:
        launcher = values.job_server_java_launcher
        if shutil.which(launcher) is None:
            raise InputError(
                f"{_FIELD}: {config.name} needs Java ('{launcher}') to start Beam's job server; "
                "install it, or name a job server that runs with --job_endpoint=HOST:PORT"
            )
    return vars(values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{_FIELD}: {message}")


def _refuse_misplaced(config: RunnerConfig, given: set[str]) -> None:
    for option in sorted(given):
        if option in _OWN_FIELDS:
            raise InputError(f"{_FIELD}: leave out {option}, and set {_OWN_FIELDS[option]}")
        runner = option.removeprefix("--").partition("_")[0]
        if runner in ("dask", *_REQUIRED) and runner != config.name:
            raise InputError(
                f"{_FIELD}: {option} is for runner '{runner}', but data.runner.name is "
                f"'{config.name}'"
            )
    of_a_cluster = {"--dask_client_address", "--dask_scheduler_file"} & given
    if config.workers and (of_a_cluster or config.name in _REQUIRED):
        raise InputError("data.runner.workers: leave it out; a cluster has workers of its own")


def _refuse_uninstalled(config: RunnerConfig) -> None:
    if config.name == "dask" and not _is_installed("distributed"):
        raise InputError("data.runner.name: dask is not installed; `pip install 'tandem[dask]'`")
    if config.name == "dataflow" and not _is_installed("google.cloud.dataflow"):
        raise InputError(
            "data.runner.name: dataflow needs Google's client libraries; "
            f"`pip install 'apache-beam[gcp]=={beam_version}'`"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _refuse_unknown(runner: str, unknown: Sequence[str], known: Sequence[str]) -> None:
    for argument in unknown:
        name = argument.partition("=")[0]
        if not name.startswith("--"):
            raise InputError(f"{_FIELD}: '{argument}' is no option; write --NAME=VALUE")
        # Close to what Beam knows: a slip. Else it may be one of the job server's own.
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if close:
            raise InputError(f"{_FIELD}: Beam has no option {name}; did you mean {close[0]}?")
        if runner not in _JOB_SERVER:
            raise InputError(f"{_FIELD}: Beam has no option {name}; leave it out")
