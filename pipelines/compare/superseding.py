"""The comparison's own runs in MLflow: logged once, and deleted once they no longer hold."""

from collections.abc import Callable, Mapping, Sequence

from pipelines import tracking
from pipelines.config import Config
from pipelines.runs import RunRecord

__all__ = ["DIGEST_PARAM", "supersede"]

DIGEST_PARAM = "figures_sha256"
"""On each of them: the digest of what it holds."""


def supersede(
    config: Config, before: Sequence[RunRecord], wanted: Mapping[str, Callable[[], str]]
) -> list[str]:
    """Have exactly the wanted runs; returns the ids of those that were added.

    ``wanted``: digest -> what logs the run, unless ``before`` has a finished one of that digest,
    and returns its id. Whatever else is in ``before`` is deleted.
    """
    held = {run.params.get(DIGEST_PARAM): run.run_id for run in before if run.status == "FINISHED"}
    added = [log() for digest, log in wanted.items() if digest not in held]
    kept = {held[digest] for digest in wanted if digest in held}
    # Last, so that an interruption leaves one too many rather than none.
    tracking.delete_runs(config, [run.run_id for run in before if run.run_id not in kept])
    return added
