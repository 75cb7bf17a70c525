"""``images``: files of a folder with a folder per class, or files that a CSV file lists."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from fsspec.core import url_to_fs
from PIL import Image, ImageOps, UnidentifiedImageError
from pyarrow import csv

from pipelines.data_config import DataConfig, ImagesConfig
from pipelines.errors import InputError
from pipelines.ingest.files import find_files, open_file
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import Fragment, Skip, Source
from pipelines.secrets import shown

__all__ = ["Images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FRAGMENT_BYTES = 32 << 20
FRAGMENT_IMAGES = 1024

_LAYOUT = "expected FOLDER/CLASS/IMAGE, with a folder per class, or a CSV file of path,label"
_SEED = 1


@dataclass(frozen=True)
class _Listing:
    """Which images there are, and of which class."""

    base: str
    """The folder that relative paths start from."""
    paths: pa.Array
    labels: pa.Array
    classes: list[str]


class Images(Source):
    """Images of one size, as ``uint8`` of shape (height, width, channels), and their classes.

    In a folder, the classes are its sub-folders that hold images, in alphabetical order, at any
    depth. In a CSV file they are what its label column says: names, in alphabetical order, or the
    integers from 0. An image's id is its path below the folder, or as the CSV file has it.

    A fragment is a fixed number of images, drawn from all classes by a hash of their ids.
    """

    label = "label"

    def __init__(self, config: DataConfig) -> None:
        path = _only_path(config)
        from_csv = path.lower().endswith(".csv")
        listing = _csv_listing(path, config.label or "label") if from_csv else _folder_listing(path)
        # A seed of its own: by the splits' hash, each fragment would fall into one split.
        names = listing.paths.cast(pa.binary()).to_pylist()
        hashes = [xxhash.xxh3_64_intdigest(name, seed=_SEED) for name in names]
        order = pa.array(np.argsort(np.array(hashes, np.uint64), kind="stable"))
        self._base = listing.base
        self._paths = listing.paths.take(order)
        self._labels = listing.labels.take(order)
        self._images = config.images
        self._shape = (config.images.height, config.images.width, config.images.channels)
        self.ids_are_unique = not from_csv
        self.classes = len(listing.classes)
        self.description = {
            "name": "images",
            "images": f"{len(hashes):,}",
            "classes": ", ".join(listing.classes),
        }
        self.features = (
            Feature(name="example_id", dtype="string"),
            Feature(name="image", dtype="uint8", shape=self._shape),
            Feature(name="label", dtype="int64"),
        )

    def fragments(self) -> list[Fragment]:
        """Up to 1,024 images each, and at most 32 MiB of pixels if that is one or more."""
        fitting = FRAGMENT_BYTES // int(np.prod(self._shape))
        count = min(max(fitting, 1), FRAGMENT_IMAGES)
        starts = range(0, len(self._paths), count)
        return [
            Fragment(number, f"{self._base}, part {number + 1} of {len(starts)}", (start, count))
            for number, start in enumerate(starts)
        ]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The fragment's images; those that are missing or cannot be decoded are skipped."""
        paths = self._paths.slice(*fragment.place)
        pixels = np.empty((len(paths), *self._shape), np.uint8)
        kept: list[int] = []
        for row, path in enumerate(paths.to_pylist()):
            try:
                pixels[len(kept)] = _read_image(_locate(self._base, path), self._images)
            except InputError as error:
                skip(str(error))
            else:
                kept.append(row)
        chosen = pa.array(kept, pa.int64())
        values = pa.array(pixels[: len(kept)].ravel())
        columns = [
            paths.take(chosen),
            pa.FixedSizeListArray.from_arrays(values, pixels[0].size),
            self._labels.slice(*fragment.place).take(chosen),
        ]
        yield pa.table(columns, schema=self.schema)


def _read_image(url: str, config: ImagesConfig) -> npt.NDArray[np.uint8]:
    """Pixels of shape (height, width, channels); ``InputError`` if there are none to be had."""
    with open_file(url) as opened:
        encoded = io.BytesIO(opened.read())
    try:
        return _decode(encoded, config)
    except UnidentifiedImageError:
        reason = "is not an image in a format that Pillow knows"
    except Exception as error:
        # Whatever it is: on damaged files Pillow's decoders raise nearly everything.
        reason = " ".join(str(error).split()) or type(error).__name__
    raise InputError(f"{shown(url)}: {reason}")


def _decode(encoded: io.BytesIO, config: ImagesConfig) -> npt.NDArray[np.uint8]:
    with Image.open(encoded) as opened:
        if opened.mode.startswith(("I", "F")):
            # Pillow would cut their values off at 255.
            raise ValueError(f"has over 8 bits per channel (mode {opened.mode}); convert it to 8")
        image = ImageOps.exif_transpose(opened).convert("L" if config.channels == 1 else "RGB")
    size = (config.width, config.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=None)
    return np.asarray(image).reshape(config.height, config.width, config.channels)


def _only_path(config: DataConfig) -> str:
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    if len(paths) != 1:
        raise InputError(f"data.path: names {len(paths)} paths; source 'images' takes one folder")
    return paths[0]


def _locate(base: str, path: str) -> str:
    return path if "://" in path or path.startswith("/") else f"{base}/{path}"


def _folder_listing(path: str) -> _Listing:
    try:
        files = find_files(path, suffixes=SUFFIXES, may_be_empty=True)
    except InputError as error:
        raise InputError(f"{error}; {_LAYOUT}") from None
    root = url_to_fs(path)[1].rstrip("/")
    names = [file.url.partition(f"{root}/")[2] for file in files]
    for file, name in zip(files, names, strict=True):
        if "/" not in name:
            raise InputError(
                f"{shown(file.url)}: is in no class's folder below {shown(path)}; {_LAYOUT}"
            )
    folders = [name.partition("/")[0] for name in names]
    classes = sorted(set(folders))
    return _Listing(
        base=files[0].url.removesuffix(f"/{names[0]}"),
        paths=pa.array(names),
        labels=pc.index_in(pa.array(folders), pa.array(classes)).cast(pa.int64()),
        classes=classes,
    )


def _csv_listing(path: str, label: str) -> _Listing:
    files = find_files(path)
    if len(files) != 1:
        raise InputError(f"data.path: {path}: is {len(files)} files; source 'images' takes one")
    base = files[0].url.rpartition("/")[0]
    paths, texts = _csv_columns(files[0].url, label)
    labels, classes = _numbered(files[0].url, label, pc.utf8_trim_whitespace(texts))
    return _Listing(base, paths, labels, classes)


def _csv_columns(url: str, label: str) -> tuple[pa.Array, pa.Array]:
    strings = csv.ConvertOptions(column_types={"path": pa.string(), label: pa.string()})
    with open_file(url) as opened:
        content = pa.py_buffer(opened.read())
    try:
        table = csv.read_csv(content, csv.ReadOptions(use_threads=False), convert_options=strings)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{shown(url)}: is not proper CSV: {' '.join(str(error).split())}"
        ) from None
    for name in ("path", label):
        if table.column_names.count(name) != 1:
            column = "data.label: no column" if name == label else "no column"
            raise InputError(
                f"{shown(url)}: {column} '{name}'; has: {', '.join(table.column_names)}"
            )
        empty = pc.index(pc.utf8_trim_whitespace(table[name]), "").as_py()
        if empty >= 0:
            raise InputError(f"{shown(url)}: row {empty + 1}: column '{name}' is empty")
    if not table.num_rows:
        raise InputError(f"{shown(url)}: has a header but no rows")
    return table["path"].combine_chunks(), table[label].combine_chunks()


def _numbered(url: str, label: str, texts: pa.Array) -> tuple[pa.Array, list[str]]:
    """Labels as class numbers, and the classes' names."""
    if not pc.all(pc.match_substring_regex(texts, r"^-?\d{1,18}$")).as_py():
        names = sorted(texts.unique().to_pylist())
        return pc.index_in(texts, pa.array(names)).cast(pa.int64()), names
    labels = texts.cast(pa.int64())
    numbers = sorted(labels.unique().to_pylist())
    if numbers != list(range(len(numbers))):
        raise InputError(
            f"{shown(url)}: column '{label}': holds {len(numbers)} different integers from "
            f"{numbers[0]} to {numbers[-1]}; number the classes from 0 without gaps, or give them "
            "names"
        )
    return labels, [str(number) for number in numbers]
