import os
import pickle
import platform
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import open_source, text, tokenizer
from pipelines.ingest.sources.text import Text
from pipelines.ingest.sources.tokenizer import Bpe, Bytes, pieces

WORDS = ["the", "lamp", "said", "Zoë", "isn't", "über", "42", "…", "don't", "<|endoftext|>", "☕"]
SPACES = [" "] * 12 + ["\n"] * 4 + ["  ", "\n\n", " \n", "\n ", "\t", "\r\n", " \n\n  ", "\u3000\n"]


def prose(words: int, seed: int = 0) -> str:
    """Text with every kind of white space that words can be parted by."""
    dice = random.Random(seed)
    return "".join(dice.choice(WORDS) + dice.choice(SPACES) for _ in range(words))


def source(path: Path | str, **settings: Any) -> Text:
    return Text(DataConfig(source="text", path=str(path), text=settings))


def no_skip(line: str) -> None:
    raise AssertionError(line)


def read(opened: Text) -> list[pa.Table]:
    """Each fragment's examples."""
    tables = [list(opened.read(fragment, no_skip)) for fragment in opened.fragments()]
    return [pa.concat_tables([opened.schema.empty_table(), *each]) for each in tables]


def ids(table: pa.Table) -> list[str]:
    names: list[str] = table["example_id"].to_pylist()
    return names


def windows(table: pa.Table) -> np.ndarray:
    return np.array(table["tokens"].to_pylist())


def joined(table: pa.Table) -> list[int]:
    """The tokens that the windows were cut from."""
    rows = windows(table)
    assert (rows[1:, 0] == rows[:-1, -1]).all()
    return [*rows[0, :1].tolist(), *rows[:, 1:].ravel().tolist()]


def small_fragments(monkeypatch: pytest.MonkeyPatch, fragment: int, lookahead: int = 1000) -> None:
    monkeypatch.setattr(text, "FRAGMENT_BYTES", fragment)
    monkeypatch.setattr(text, "LOOKAHEAD_BYTES", lookahead)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(prose(5_000), newline="")
    return path


def test_a_window_begins_with_the_last_token_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abcdefghijkl")

    (table,) = read(source(tmp_path / "a.txt", sequence_length=3))

    assert ids(table) == ["a.txt:0+0", "a.txt:0+1", "a.txt:0+2"]
    assert [bytes(row) for row in windows(table).tolist()] == [b"abcd", b"defg", b"ghij"]


def test_the_columns_are_ids_and_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Zoë")
    opened = source(tmp_path / "a.txt", sequence_length=3)

    (table,) = read(opened)

    assert opened.features == (
        Feature(name="example_id", dtype="string"),
        Feature(name="tokens", dtype="int64", shape=(4,)),
    )
    assert table.schema == opened.schema
    assert table["tokens"].null_count == 0
    assert table["tokens"].to_pylist() == [[0x5A, 0x6F, 0xC3, 0xAB]]
    assert (opened.label, opened.classes, opened.ids_are_unique) == (None, 256, True)
    assert opened.files == {}


def test_the_source_describes_itself(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 1_000_000)
    (tmp_path / "b.md").write_bytes(b"y" * 234_567)

    assert open_source(DataConfig(source="text", path=str(tmp_path))).description == {
        "name": "text",
        "files": "2 files, 1.2 MB",
        "tokenizer": "bytes",
        "tokens": "1,234,567",
    }


def test_without_a_path_the_topics_of_pydoc_are_read() -> None:
    topics = Path(find_spec("pydoc_data.topics").origin).read_bytes()
    opened = Text(DataConfig(source="text"))

    (table,) = read(opened)

    assert bytes(joined(table)) == topics[: len(joined(table))]
    assert len(topics) - len(joined(table)) < 128
    assert ids(table)[:2] == ["topics.py:0+0", "topics.py:0+1"]
    assert opened.description == {
        "name": "text",
        "files": f"1 file, {len(topics) / 1e6:.1f} MB",
        "corpus": f"pydoc's topics, Python {platform.python_version()}",
        "tokenizer": "bytes",
        "tokens": f"{len(topics):,}",
    }


def test_a_python_without_the_topics_of_pydoc_needs_a_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "find_spec", lambda name: None)

    with pytest.raises(InputError) as refused:
        Text(DataConfig(source="text"))

    assert str(refused.value) == (
        "data.path: not given, and this Python comes without pydoc's topics, the default for "
        "text; name a text file"
    )


@pytest.mark.parametrize("path", ["", []])
def test_an_empty_path_is_not_taken_for_the_default(path: object) -> None:
    with pytest.raises(ValidationError, match="source 'text' needs a path: a file, glob or URL"):
        DataConfig(source="text", path=path)


def test_a_text_needs_one_token_more_than_the_sequence_length(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abcd")

    assert read(source(tmp_path, sequence_length=3))[0].num_rows == 1
    with pytest.raises(InputError):
        source(tmp_path, sequence_length=4).fragments()


def test_every_file_of_a_folder_is_cut_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.md").write_bytes(b"bbbbb")
    (tmp_path / "deep" / "c.text").write_bytes(b"ccccc")
    (tmp_path / "a.txt").write_bytes(b"aaa")
    (tmp_path / "d.csv").write_bytes(b"ddddd")

    tables = read(source(tmp_path, sequence_length=4))

    assert [ids(table) for table in tables] == [[], ["b.md:0+0"], ["deep/c.text:0+0"]]
    assert [windows(table).tolist() for table in tables[1:]] == [[[98] * 5], [[99] * 5]]


def test_a_list_of_paths_is_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("some text")

    paths = [str(tmp_path / "c.txt"), str(tmp_path / "a*")]
    opened = Text(DataConfig(source="text", path=paths, text={"sequence_length": 8}))

    assert [ids(table) for table in read(opened)] == [["a.txt:0+0"], ["c.txt:0+0"]]


def test_a_remote_file_is_read() -> None:
    with fsspec.open("memory://books/a.txt", "wb") as file:
        file.write(b"some text")

    (table,) = read(source("memory://books/a.txt", sequence_length=8))

    assert ids(table) == ["a.txt:0+0"]
    assert bytes(joined(table)) == b"some text"


def test_fragments_end_after_a_line_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_fragments(monkeypatch, 8)
    (tmp_path / "a.txt").write_bytes(b"1234567\n12345\n1\n123456789\n12345")

    opened = source(tmp_path / "a.txt", sequence_length=2)

    assert [fragment.place[2:] for fragment in opened.fragments()] == [(0, 14), (14, 26), (26, 31)]
    assert [fragment.number for fragment in opened.fragments()] == [0, 1, 2]
    assert opened.fragments()[1].name == f"{tmp_path}/a.txt, bytes 14 to 26"


def test_a_line_break_at_the_fragments_size_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_fragments(monkeypatch, 4)
    (tmp_path / "a.txt").write_bytes(b"1234\n12\n")

    places = [each.place[2:] for each in source(tmp_path, sequence_length=2).fragments()]

    assert places == [(0, 5), (5, 8)]


def test_an_overlong_line_is_cut_between_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_fragments(monkeypatch, 8, lookahead=4)
    (tmp_path / "a.txt").write_text("☕" * 6 + "\n" + "😀" * 3)

    opened = source(tmp_path / "a.txt", sequence_length=2)

    places = [fragment.place[2:] for fragment in opened.fragments()]
    assert places == [(0, 9), (9, 19), (19, 27), (27, 31)]
    assert sum(table.num_rows for table in read(opened)) == 4 + 4 + 3 + 1


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_fragments_hold_the_whole_text_but_their_ends(
    book: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    small_fragments(monkeypatch, 5_000)
    opened = source(book, sequence_length=16, tokenizer=kind, vocabulary_size=300)
    content = book.read_bytes()

    tables = read(opened)

    assert len(tables) == -(-len(content) // 5_000) > 5
    for fragment, table in zip(opened.fragments(), tables, strict=True):
        start, stop = fragment.place[2:]
        tokens = joined(table)
        if kind == "bytes":
            found = bytes(tokens)
        else:
            vocabulary = Tokenizer.from_buffer(opened.files["tokenizer.json"])
            found = vocabulary.decode(tokens, skip_special_tokens=False).encode()
            found = found.rstrip("\N{REPLACEMENT CHARACTER}".encode())
        assert content[start:stop].startswith(found)
        assert len(content[start:stop]) - len(found) < 16 * 15
        assert ids(table) == [f"book.txt:{start}+{row}" for row in range(table.num_rows)]


def test_pieces_of_bounded_size_make_up_a_fragment(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = source(book, sequence_length=16)
    (whole,) = read(opened)

    monkeypatch.setattr(text, "TABLE_BYTES", 10 * 17 * 8)
    parts = list(opened.read(opened.fragments()[0], no_skip))

    assert {part.num_rows for part in parts[:-1]} == {10}
    assert pa.concat_tables(parts).equals(whole)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_pickled_source_reads_the_same(book: Path, kind: str) -> None:
    opened = source(book, tokenizer=kind, vocabulary_size=400)
    copy = pickle.loads(pickle.dumps(opened))  # noqa: S301

    assert copy.fragments() == opened.fragments()
    assert read(copy) == read(opened) == read(source(book, tokenizer=kind, vocabulary_size=400))
    assert (copy.classes, copy.files) == (opened.classes, opened.files)


def test_the_trained_tokenizer_belongs_to_the_dataset(book: Path) -> None:
    opened = source(book, tokenizer="bpe", vocabulary_size=300, sequence_length=16)

    vocabulary = Tokenizer.from_buffer(opened.files["tokenizer.json"])

    assert opened.classes == vocabulary.get_vocab_size() == 300
    assert opened.description["tokenizer"] == "bpe, 300 tokens"
    assert "tokens" not in opened.description
    assert vocabulary.token_to_id("<|endoftext|>") == 0
    tokens = joined(read(opened)[0])
    assert vocabulary.encode(book.read_bytes().decode()).ids[: len(tokens)] == tokens
    assert 0 in tokens


def test_a_small_text_has_a_small_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("la la la")

    opened = source(tmp_path, tokenizer="bpe", sequence_length=2)

    # 256 bytes, <|endoftext|>, "la" and " la".
    assert opened.classes == 259
    assert len(joined(read(opened)[0])) == 3


def test_training_reads_only_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_fragments(monkeypatch, 100)
    monkeypatch.setattr(text, "TRAINING_BYTES", 200)
    (tmp_path / "long.txt").write_bytes(b"la la la\n" * 30)
    (tmp_path / "short.txt").write_bytes(b"la la la\n" * 30)
    seen = source(tmp_path, tokenizer="bpe", sequence_length=2).files

    with (tmp_path / "long.txt").open("ab") as file:
        file.write(b"something else, something else\n")

    assert source(tmp_path, tokenizer="bpe", sequence_length=2).files == seen


def test_training_gives_the_same_in_every_process(book: Path) -> None:
    program = (
        "import sys; from pipelines.data_config import DataConfig\n"
        "from pipelines.ingest.sources.text import Text\n"
        "config = DataConfig(source='text', path=sys.argv[1], text={'tokenizer': 'bpe'})\n"
        "sys.stdout.buffer.write(Text(config).files['tokenizer.json'])"
    )
    here = source(book, tokenizer="bpe").files["tokenizer.json"]

    for seed, threads in (("1", "1"), ("2", "4")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        there = subprocess.run(
            [sys.executable, "-c", program, str(book)],
            env=environment,
            capture_output=True,
            check=True,
        )
        assert there.stdout == here


@pytest.mark.parametrize("size", [1, 7, 50])
def test_tokens_do_not_depend_on_the_pieces_that_are_encoded_at_a_time(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(tokenizer, "PIECE_CHARACTERS", size)
    monkeypatch.setattr(tokenizer, "BATCH_PIECES", 3)
    content = prose(3_000, seed=1)
    trained = Bpe.train([prose(3_000)], 400)

    tokens = trained.encode(content)

    assert len(list(pieces(content))) > 100
    assert "".join(pieces(content)) == content
    assert tokens.tolist() == Tokenizer.from_buffer(trained.to_json()).encode(content).ids


@pytest.mark.parametrize("encoder", [Bytes(), Bpe.train(["no no"], 300)], ids=["bytes", "bpe"])
def test_every_byte_can_be_encoded(encoder: Bytes | Bpe) -> None:
    content = "".join(map(chr, [*range(0x800), 0xFEFF, 0xFFFD, 0x1F600]))

    tokens = encoder.encode(content)

    if isinstance(encoder, Bytes):
        assert tokens.tobytes().decode() == content
    else:
        vocabulary = Tokenizer.from_buffer(encoder.to_json())
        assert vocabulary.decode(tokens.tolist(), skip_special_tokens=False) == content
    assert encoder.encode("").tolist() == []


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [(b"\xff", 1, 0), (b"good\nbad \xe9\n", 2, 9), (b"cut short \xe2\x98", 1, 10)],
)
def test_text_that_is_not_utf8_is_refused(
    tmp_path: Path, content: bytes, line: int, byte: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    message = f"{path}: line {line}, byte {byte}: is not UTF-8; convert the file to UTF-8"
    opened = source(path)

    with pytest.raises(InputError) as refused:
        opened.fragments()
    assert str(refused.value) == message
    with pytest.raises(InputError) as refused:
        source(path, tokenizer="bpe")
    assert str(refused.value) == message


def test_the_line_that_is_not_utf8_is_counted_from_the_files_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_fragments(monkeypatch, 50)
    (tmp_path / "a.txt").write_bytes(b"line\n" * 100 + b"\xff\n" + b"line\n" * 20)
    opened = source(tmp_path, sequence_length=4)

    with pytest.raises(InputError) as refused:
        read(opened)

    assert str(refused.value) == (
        f"{tmp_path}/a.txt: line 101, byte 500: is not UTF-8; convert the file to UTF-8"
    )


@pytest.mark.parametrize(("kind", "tokens"), [("bytes", 10), ("bpe", 6)])
def test_texts_that_are_all_too_short_are_refused(tmp_path: Path, kind: str, tokens: int) -> None:
    (tmp_path / "a.txt").write_text("xyzxyz")
    (tmp_path / "b.txt").write_text("abcd")
    # Byte-pair encoding finds the xyz that occurs twice.

    with pytest.raises(InputError) as refused:
        source(tmp_path, tokenizer=kind, sequence_length=1000).fragments()

    assert str(refused.value) == (
        f"data.path: {tmp_path}: {tokens} tokens in 2 files, none of which has the 1,001 of one "
        "example; lower data.text.sequence_length (now 1,000) or join the files"
    )


def test_a_file_that_shrinks_while_it_is_read_is_refused(book: Path) -> None:
    opened = source(book)
    (fragment,) = opened.fragments()
    book.write_bytes(book.read_bytes()[:-1])

    with pytest.raises(InputError) as refused:
        list(opened.read(fragment, no_skip))

    assert str(refused.value) == f"{book}: became shorter while it was read; ingest it again"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        source(tmp_path / "none.txt")

    assert str(refused.value) == f"{tmp_path}/none.txt: no such file"
