"""One side of a comparison: a module that is run in a process of its own and answers in a file.

``python -m benchmarks.MODULE ACTION OPTIONS ANSWER``, where OPTIONS is a JSON mapping and ANSWER
the file to write. The module's imports are over before its action starts, so what the action
times holds neither the interpreter's start nor imports.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

__all__ = ["Measures", "respond", "timed"]

Measures = dict[str, float]
"""What was measured, by name: ``seconds``, ``rows``, ``peak_rss_bytes`` ..."""


@contextmanager
def timed(measures: Measures, prefix: str = "") -> Iterator[None]:
    """Note how long the block takes, and how much processor time of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    measures[f"{prefix}seconds"] = time.perf_counter() - wall
    measures[f"{prefix}cpu_seconds"] = time.process_time() - cpu


def respond(actions: Mapping[str, Callable[..., Measures]], packages: Sequence[str]) -> None:
    """Run the action that the command line names and write what it measured.

    ``packages``: distributions whose versions belong to the result.
    """
    action, options, answer = sys.argv[1:]
    measures = actions[action](**json.loads(options))
    peaks = [
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    found = {
        "measures": measures | {"peak_rss_bytes": max(peaks)},
        "versions": {name: version(name) for name in packages},
        "python": sys.version.split()[0],
    }
    Path(answer).write_text(json.dumps(found))
