"""What reading a dataset leaves beside it, to be quick the next time.

``.cache/verified.json`` tells which shards were checked against their checksums, and when they
were last written then. ``.cache/<fingerprint>/split=<split>/<column>.npy`` holds the columns
uncompressed, one contiguous array per column, so that every worker of the machine maps the same
memory and gathers rows from it without decoding. Parquet cannot be mapped like that, and a gather
over the many record batches of an Arrow file costs more than over one array (``benchmarks/``
measures it). The fingerprint's first digits are there because a dataset may be copied over another.

If the dataset's folder cannot be written to, the cache is in the system's temporary folder.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.ingest.columns import Columns, encode, encoded_dtype
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Split
from pipelines.ingest.sources.base import ID
from pipelines.whole_file import write_whole

__all__ = ["mapped_columns", "verify_once"]


def verify_once(dataset: Dataset) -> None:
    """Check every shard against its checksum, unless it was and has not been written to since.

    Raises:
        InputError: naming the first shard that is missing or altered.
    """
    folder = _cache_folder(dataset)
    known = _read_verified(folder)
    found: dict[str, list[int]] = {}
    for shard in dataset.manifest.shards:
        stamp = _stamp(dataset.folder / shard.path)
        if stamp is None or known.get(shard.path) != stamp:
            dataset.read(shard)
            stamp = _stamp(dataset.folder / shard.path)
        found[shard.path] = stamp or []
    if found != known:
        with _locked(folder):
            write_whole(folder / "verified.json", json.dumps(found))


def mapped_columns(dataset: Dataset, split: Split) -> Columns:
    """A split's columns but ``example_id``, as read-only arrays mapped from files.

    The first call verifies the shards and decodes them; other processes wait for it meanwhile.

    Raises:
        InputError: naming the first shard that is missing or altered.
    """
    verify_once(dataset)
    folder = _cache_folder(dataset)
    ready = folder / dataset.manifest.fingerprint[:16] / f"split={split}"
    if not ready.exists():
        with _locked(folder):
            if not ready.exists():
                _remove_others(ready.parent)
                _decode(dataset, split, ready)
    names = [feature.name for feature in dataset.manifest.features if feature.name != ID]
    # As plain arrays: np.memmap's own indexing costs several times as much on small batches.
    return {
        name: np.asarray(np.load(ready / f"{number}.npy", mmap_mode="r"))
        for number, name in enumerate(names)
    }


def _remove_others(own: Path) -> None:
    """Make room: the columns of a dataset that is no longer here may be larger than all its shards.

    Who has mapped them reads on.
    """
    for other in own.parent.iterdir():
        if other.is_dir() and other != own:
            shutil.rmtree(other, ignore_errors=True)


def _decode(dataset: Dataset, split: Split, ready: Path) -> None:
    manifest = dataset.manifest
    features = [feature for feature in manifest.features if feature.name != ID]
    partial = ready.with_name(f".{ready.name}.writing")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        arrays = [
            np.lib.format.open_memmap(
                partial / f"{number}.npy",
                mode="w+",
                dtype=encoded_dtype(manifest, feature),
                shape=(manifest.rows(split), *feature.shape),
            )
            for number, feature in enumerate(features)
        ]
        start = 0
        for table in dataset.tables(split):
            stop = start + table.num_rows
            for array, feature in zip(arrays, features, strict=True):
                array[start:stop] = encode(table.column(feature.name), manifest, feature)
            start = stop
        for array in arrays:
            array.flush()
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"{ready}: cannot be written ({error.strerror})") from None
    partial.rename(ready)


def _cache_folder(dataset: Dataset) -> Path:
    beside = dataset.folder / ".cache"
    with suppress(OSError):
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    name = f"tandem-{os.getuid()}-{dataset.manifest.fingerprint[:16]}"
    elsewhere = Path(tempfile.gettempdir()) / name
    elsewhere.mkdir(mode=0o700, exist_ok=True)
    if elsewhere.stat().st_uid != os.getuid():
        raise InputError(f"{elsewhere}: belongs to another user, whose data is not to be trusted")
    return elsewhere


def _read_verified(folder: Path) -> dict[str, list[int]]:
    with suppress(OSError, ValueError):
        known: dict[str, list[int]] = json.loads((folder / "verified.json").read_bytes())
        return known
    return {}


def _stamp(path: Path) -> list[int] | None:
    with suppress(OSError):
        status = path.stat()
        return [status.st_size, status.st_mtime_ns, status.st_ino]
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
