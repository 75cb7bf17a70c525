"""Tandem's ingestion: planning, splitting, shards, checksums, statistics and manifest."""

from typing import Any

import pipelines.ingest.sources.csv
import pipelines.ingest.sources.synthetic
import pipelines.ingest.write  # noqa: F401  with Beam, which `ingest` would else import in time
from benchmarks.contestant import Measures, respond, timed
from pipelines.config import parse_config
from pipelines.ingest import ingest


def write(data: dict[str, Any]) -> Measures:
    """Ingest what the ``data`` section of a configuration says."""
    config = parse_config({"name": "benchmark", "data": data}, "benchmark")
    measures: Measures = {}
    with timed(measures):
        dataset, _ = ingest(config)
    return measures | {"rows": sum(shard.rows for shard in dataset.manifest.shards)}


if __name__ == "__main__":
    respond({"write": write}, ["apache-beam", "numpy", "pyarrow"])
