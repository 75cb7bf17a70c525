"""MosaicML Streaming: an MDS dataset through PyTorch's DataLoader."""

import torch
from torch.utils.data import DataLoader

from benchmarks.contestant import Measures, respond, timed
from benchmarks.rivals.rows import column_types, samples

# Streaming imports torchvision, which nothing here uses. The registry's is a CUDA build, and will
# not load beside a CPU build of PyTorch until these operators are declared.
_VISION = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _VISION.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataset  # noqa: E402

_ENCODINGS = {"float32": "float32", "int64": "int64", "string": "str"}


def prepare(shards: list[str], folder: str, columns: list[str]) -> Measures:
    """Convert the shards' rows to MDS, uncompressed, in MDS shards of the default 64 MiB."""
    encodings = {name: _ENCODINGS[kind] for name, kind in column_types(shards[0], columns).items()}
    rows = 0
    with MDSWriter(out=folder, columns=encodings) as writer:
        for shard in shards:
            for sample in samples(shard, columns):
                writer.write(sample)
                rows += 1
    return {"rows": rows}


def read(folder: str, batch_size: int, workers: int) -> Measures:
    """Two shuffled epochs; the second one counts."""
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=batch_size)
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0
    )
    measures: Measures = {}
    with timed(measures, "first_epoch_"):
        for _ in loader:
            pass
    rows = 0
    with timed(measures):
        for batch in loader:
            rows += len(next(iter(batch.values())))
    return measures | {"rows": rows}


if __name__ == "__main__":
    respond({"prepare": prepare, "read": read}, ["mosaicml-streaming", "numpy", "torch"])
