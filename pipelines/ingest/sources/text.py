"""``text``: plain text in UTF-8, cut into windows of tokens that predict the next one."""

import platform
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.stride_tricks import sliding_window_view

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile, find_files, read_range
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import Fragment, Skip, Source
from pipelines.ingest.sources.tokenizer import Bpe, Bytes, TextTokenizer
from pipelines.secrets import shown

__all__ = ["Text"]

SUFFIXES = (".txt", ".md", ".text")
FRAGMENT_BYTES = 16 << 20
LOOKAHEAD_BYTES = 64 << 10
"""How far beyond its size a fragment may reach for the end of its last line."""
TRAINING_BYTES = 64 << 20
TABLE_BYTES = 32 << 20


class Text(Source):
    """Windows of ``sequence_length + 1`` tokens, each beginning with the last one's last token.

    So every token of a fragment but its first is predicted exactly once. Windows never cross the
    bounds of fragments or files: the tokens at a fragment's end that do not fill a window are
    left out, and a file shorter than a window gives no example. A fragment ends after a line
    break, or within a line where that is longer than 64 KiB.

    A byte-pair vocabulary is trained here, on the first 64 MiB of the source (up to the end of a
    fragment), and is the dataset's file ``tokenizer.json``.

    Without a path, the text is the file of pydoc's topics (some 0.7 MB of English and Python),
    which every Python carries; its content depends on Python's version.
    """

    label = None
    ids_are_unique = True

    def __init__(self, config: DataConfig) -> None:
        self._path = config.path if config.path is not None else _pydoc_topics()
        self._files = find_files(self._path, suffixes=SUFFIXES)
        self._length = config.text.sequence_length
        self._tokenizer: TextTokenizer
        size = sum(file.size for file in self._files)
        self.description = {"name": "text", "files": _total(len(self._files), size)}
        if config.path is None:
            self.description["corpus"] = f"pydoc's topics, Python {platform.python_version()}"
        if config.text.tokenizer == "bytes":
            self._tokenizer = Bytes()
            self.description |= {"tokenizer": "bytes", "tokens": f"{size:,}"}
        else:
            self._tokenizer = trained = Bpe.train(
                _training_texts(self._cut()), config.text.vocabulary_size
            )
            self.files = {"tokenizer.json": trained.to_json()}
            self.description["tokenizer"] = f"bpe, {trained.size:,} tokens"
        self.classes = self._tokenizer.size
        self.features = (
            Feature(name="example_id", dtype="string"),
            Feature(name="tokens", dtype="int64", shape=(self._length + 1,)),
        )

    def fragments(self) -> list[Fragment]:
        """Ranges of about 16 MiB of the files' bytes.

        Raises:
            InputError: if no file is long enough for one example.
        """
        fragments = list(self._cut())
        self._require_an_example(fragments)
        return fragments

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The fragment's windows; nothing is ever skipped.

        Ids are the file, the fragment's first byte and the window's number, as in
        ``book.txt:16777301+42``.

        Raises:
            InputError: if a file is not UTF-8, naming the line, or changes meanwhile.
        """
        _, name, start, _ = fragment.place
        tokens = self._tokenizer.encode(_read_text(fragment))
        width = self._length + 1
        if len(tokens) < width:
            return
        windows = sliding_window_view(tokens, width)[:: self._length]
        rows = max(1, TABLE_BYTES // (8 * width))
        for first in range(0, len(windows), rows):
            part = windows[first : first + rows].astype(np.int64)
            numbers = pa.array(np.arange(first, first + len(part))).cast(pa.string())
            columns = [
                pc.binary_join_element_wise(f"{name}:{start}", numbers, "+"),
                pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), width),
            ]
            yield pa.table(columns, schema=self.schema)

    def _cut(self) -> Iterator[Fragment]:
        number = 0
        for file in self._files:
            targets = range(FRAGMENT_BYTES, file.size, FRAGMENT_BYTES)
            # A set: with long lines, two targets may lie in the same one.
            bounds = sorted({0, file.size, *(_boundary(file, target) for target in targets)})
            for start, stop in pairwise(bounds):
                name = f"{shown(file.url)}, bytes {start:,} to {stop:,}"
                yield Fragment(number, name, (file.url, file.name, start, stop))
                number += 1

    def _require_an_example(self, fragments: list[Fragment]) -> None:
        width = self._length + 1
        found = 0
        for fragment in fragments:
            start, stop = fragment.place[2:]
            if stop - start >= width * self._tokenizer.longest:
                return
            tokens = len(self._tokenizer.encode(_read_text(fragment)))
            if tokens >= width:
                return
            found += tokens
        raise InputError(
            f"data.path: {self._path}: {found:,} tokens in {len(self._files):,} files, none of "
            f"which has the {width:,} of one example; lower data.text.sequence_length (now "
            f"{self._length:,}) or join the files"
        )


def _pydoc_topics() -> str:
    package = find_spec("pydoc_data")
    topics = find_spec("pydoc_data.topics") if package else None
    if topics is None or topics.origin is None:
        raise InputError(
            "data.path: not given, and this Python comes without pydoc's topics, the default for "
            "text; name a text file"
        )
    return topics.origin


def _boundary(file: SourceFile, target: int) -> int:
    """The first byte from ``target`` on that begins a line, or failing that a character."""
    ahead = read_range(file.url, target, min(target + LOOKAHEAD_BYTES, file.size))
    line_break = ahead.find(b"\n")
    if line_break >= 0:
        return target + line_break + 1
    # UTF-8: the bytes of a character after its first are 0b10xxxxxx.
    within = next((at for at, byte in enumerate(ahead[:4]) if byte >> 6 != 0b10), 0)
    return target + within


def _training_texts(fragments: Iterable[Fragment]) -> Iterator[str]:
    used = 0
    for fragment in fragments:
        if used >= TRAINING_BYTES:
            return
        yield _read_text(fragment)
        used += fragment.place[3] - fragment.place[2]


def _read_text(fragment: Fragment) -> str:
    url, _, start, stop = fragment.place
    content = read_range(url, start, stop)
    if len(content) < stop - start:
        raise InputError(f"{shown(url)}: became shorter while it was read; ingest it again")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        for before in range(0, start, FRAGMENT_BYTES):
            stretch = read_range(url, before, min(before + FRAGMENT_BYTES, start))
            line += stretch.count(b"\n")
        offset = start + error.start
        raise InputError(
            f"{shown(url)}: line {line}, byte {offset}: is not UTF-8; convert the file to UTF-8"
        ) from None


def _total(files: int, size: int) -> str:
    return f"{files:,} {'file' if files == 1 else 'files'}, {size / 1e6:,.1f} MB"
