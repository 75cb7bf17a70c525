"""TFX: a pipeline of one component, CsvExampleGen, from CSV to TFRecords of tf.Example."""

from pathlib import Path

import tensorflow as tf
from tfx import v1 as tfx

from benchmarks.contestant import Measures, respond, timed


def generate(csv_folder: str, folder: str, workers: int) -> Measures:
    """Convert the CSV files of a folder.

    ``workers``: Beam's processes, 0 for one per core; 1 stays in this process.
    """
    Path(folder).mkdir(parents=True)
    mode = "in_memory" if workers == 1 else "multi_processing"
    generator = tfx.components.CsvExampleGen(
        input_base=csv_folder,
        output_config=tfx.proto.Output(
            split_config=tfx.proto.SplitConfig(
                splits=[
                    tfx.proto.SplitConfig.Split(name="train", hash_buckets=8),
                    tfx.proto.SplitConfig.Split(name="eval", hash_buckets=2),
                ]
            )
        ),
    )
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="benchmark",
        pipeline_root=f"{folder}/artifacts",
        components=[generator],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            f"{folder}/metadata.db"
        ),
        beam_pipeline_args=[
            # Beam's "DirectRunner" first tries to download another one.
            "--runner=FnApiRunner",
            f"--direct_num_workers={workers}",
            f"--direct_running_mode={mode}",
        ],
    )
    measures: Measures = {}
    with timed(measures):
        tfx.orchestration.LocalDagRunner().run(pipeline)
    written = sorted(str(path) for path in Path(folder).rglob("*.gz"))
    rows = sum(1 for _ in tf.data.TFRecordDataset(written, "GZIP"))
    return measures | {"rows": rows}


if __name__ == "__main__":
    respond({"generate": generate}, ["apache-beam", "tensorflow", "tfx"])
