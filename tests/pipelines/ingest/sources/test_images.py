import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import Fragment, images, open_source
from pipelines.ingest.sources.images import Images

LAYOUT = "expected FOLDER/CLASS/IMAGE, with a folder per class, or a CSV file of path,label"
SIZE = {"height": 2, "width": 3}
RED = (255, 0, 0)


def encoded(pixels: Any, suffix: str = ".png", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    file = io.BytesIO()
    image.convert(mode or image.mode).save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def plain(colour: tuple[int, ...] = RED, height: int = 2, width: int = 3) -> bytes:
    """A picture in one colour."""
    return encoded(np.full((height, width, len(colour)), colour))


def folder(path: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def source(path: Path | str, label: str | None = None, **settings: Any) -> Images:
    config = DataConfig(source="images", path=str(path), label=label, images=SIZE | settings)
    return Images(config)


def read(opened: Images, fragments: list[Fragment] | None = None) -> tuple[pa.Table, list[str]]:
    """All examples, sorted by id, and what was skipped."""
    skipped: list[str] = []
    tables = [
        table
        for fragment in (opened.fragments() if fragments is None else fragments)
        for table in opened.read(fragment, skipped.append)
    ]
    return pa.concat_tables(tables).sort_by("example_id"), sorted(skipped)


def pixels(opened: Images, table: pa.Table) -> np.ndarray:
    """Of shape (images, height, width, channels)."""
    return np.array(table["image"].to_pylist(), np.uint8).reshape(-1, *opened.features[1].shape)


def only_image(path: Path, content: bytes, suffix: str = ".png", **settings: Any) -> np.ndarray:
    """What becomes of a file: shape (height, width, channels)."""
    opened = source(folder(path, {f"class/image{suffix}": content}), **settings)
    table, skipped = read(opened)
    assert skipped == []
    (image,) = pixels(opened, table)
    return image


def listed(path: Path, text: str, contents: Mapping[str, bytes] | None = None) -> Path:
    """A folder with a CSV file."""
    folder(path, contents or {})
    (path / "list.csv").write_text(text)
    return path / "list.csv"


def labels(opened: Images) -> dict[str, int]:
    table, _ = read(opened)
    return dict(zip(table["example_id"].to_pylist(), table["label"].to_pylist(), strict=True))


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three classes with images of one colour each, the last deeper down."""
    colours = {f"cat/{n}.png": plain((n, 0, 0)) for n in range(10)}
    colours |= {f"ant/{n}.png": plain((0, n, 0)) for n in range(10)}
    colours |= {f"bee/2024/{n}.png": plain((0, 0, n)) for n in range(5)}
    return folder(tmp_path / "animals", colours)


def test_a_folders_sub_folders_are_the_classes(animals: Path) -> None:
    (animals / "drafts").mkdir()
    (animals / "cat" / "notes.txt").write_text("not an image")
    opened = source(animals)

    table, skipped = read(opened)

    assert opened.description == {"name": "images", "images": "25", "classes": "ant, bee, cat"}
    assert (opened.label, opened.classes, opened.ids_are_unique) == ("label", 3, True)
    assert table["example_id"].to_pylist() == [
        *(f"ant/{n}.png" for n in range(10)),
        *(f"bee/2024/{n}.png" for n in range(5)),
        *(f"cat/{n}.png" for n in range(10)),
    ]
    assert table["label"].to_pylist() == [0] * 10 + [1] * 5 + [2] * 10
    channel_sums = pixels(opened, table).reshape(-1, 6, 3).sum(axis=1)
    assert channel_sums[3].tolist() == [0, 18, 0]
    assert channel_sums[14].tolist() == [0, 0, 24]
    assert channel_sums[24].tolist() == [54, 0, 0]
    assert skipped == []


def test_the_columns_are_id_image_and_label(animals: Path) -> None:
    opened = source(animals, channels=1)

    table, _ = read(opened)

    assert opened.features == (
        Feature(name="example_id", dtype="string"),
        Feature(name="image", dtype="uint8", shape=(2, 3, 1)),
        Feature(name="label", dtype="int64"),
    )
    assert table.schema == opened.schema
    assert [table[name].null_count for name in table.column_names] == [0, 0, 0]


def test_the_folder_may_be_given_in_any_way(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(animals.parent)
    table, _ = read(source(animals))

    for path in ("animals", "./animals/", f"{animals}/", f"file://{animals}"):
        assert read(source(path))[0] == table
    assert read(Images(DataConfig(source="images", path=["animals"], images=SIZE)))[0] == table


def test_one_class_is_enough(tmp_path: Path) -> None:
    opened = source(folder(tmp_path, {"deep/in/cat/a.png": plain()}))

    assert labels(opened) == {"deep/in/cat/a.png": 0}
    assert opened.description["classes"] == "deep"


def test_suffixes_count_in_any_case(tmp_path: Path) -> None:
    names = ["a.PNG", "b.Jpg", "c.jpeg", "d.bmp", "e.GIF", "f.webp", "g.tif", "h.TIFF"]
    contents = {
        f"class/{name}": encoded(np.full((2, 3, 3), RED), Path(name).suffix.lower())
        for name in names
    }
    opened = source(folder(tmp_path, contents | {"class/i.svg": b"<svg/>"}))

    table, skipped = read(opened)

    assert skipped == []
    assert table["example_id"].to_pylist() == [f"class/{name}" for name in names]
    # The formats that lose nothing.
    for image in pixels(opened, table)[[0, 3, 4, 6, 7]]:
        assert (image == RED).all()


def test_pixels_are_kept_as_they_are(tmp_path: Path) -> None:
    content = np.arange(18).reshape(2, 3, 3)

    assert only_image(tmp_path, encoded(content)).tolist() == content.tolist()


def test_an_image_is_resized_bilinearly(tmp_path: Path) -> None:
    content = np.array([[[0], [100], [200], [40]]]).repeat(3, axis=2)

    image = only_image(tmp_path, encoded(content), height=1, width=2)

    # Triangles of twice the width, cut off at the edge, weigh pixels 3, 3, 1 and 1, 3, 3.
    expected = [(3 * 0 + 3 * 100 + 200) / 7, (100 + 3 * 200 + 3 * 40) / 7]
    assert image[0, :, 0].tolist() == [round(value) for value in expected]
    assert image.shape == (1, 2, 3)


def test_colours_turn_grey_by_their_brightness(tmp_path: Path) -> None:
    image = only_image(tmp_path, plain((255, 0, 0)), channels=1)

    assert image.tolist() == [[[76]] * 3] * 2


@pytest.mark.parametrize(("mode", "grey"), [("L", 200), ("1", 255), ("P", 200), ("LA", 200)])
def test_grey_turns_into_three_equal_channels(tmp_path: Path, mode: str, grey: int) -> None:
    image = only_image(tmp_path, encoded(np.full((2, 3), grey), mode=mode))

    assert (image == grey).all()
    assert image.shape == (2, 3, 3)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    image = only_image(tmp_path, plain((255, 0, 0, 17)))

    assert (image == RED).all()


def test_the_cameras_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it
    content = encoded([[[1] * 3, [2] * 3], [[3] * 3, [4] * 3], [[5] * 3, [6] * 3]], exif=exif)

    assert only_image(tmp_path, content)[:, :, 0].tolist() == [[5, 3, 1], [6, 4, 2]]


def test_fragments_are_of_bounded_size(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.place for each in source(animals).fragments()] == [(0, 1024)]

    monkeypatch.setattr(images, "FRAGMENT_IMAGES", 10)
    assert [each.place for each in source(animals).fragments()] == [(0, 10), (10, 10), (20, 10)]

    monkeypatch.setattr(images, "FRAGMENT_BYTES", 8 * 18 + 17)
    fragments = source(animals).fragments()
    assert [each.place for each in fragments] == [(0, 8), (8, 8), (16, 8), (24, 8)]
    assert [each.number for each in fragments] == [0, 1, 2, 3]
    assert fragments[1].name == f"{animals}, part 2 of 4"

    monkeypatch.setattr(images, "FRAGMENT_BYTES", 1)
    assert len(source(animals).fragments()) == 25


def test_a_fragment_mixes_the_classes(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read(source(animals))
    monkeypatch.setattr(images, "FRAGMENT_IMAGES", 9)
    opened = source(animals)

    tables = [read(opened, [fragment])[0] for fragment in opened.fragments()]

    assert [len(set(table["label"].to_pylist())) for table in tables] == [3, 3, 3]
    assert pa.concat_tables(tables).sort_by("example_id") == whole


def test_a_pickled_source_reads_the_same(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "FRAGMENT_IMAGES", 9)
    opened = source(animals)
    copy = pickle.loads(pickle.dumps(opened))  # noqa: S301

    assert copy.fragments() == opened.fragments() == source(animals).fragments()
    for fragment in opened.fragments():
        (table,) = opened.read(fragment, print)
        assert list(copy.read(fragment, print)) == list(source(animals).read(fragment, print))
        assert list(copy.read(fragment, print)) == [table]


def test_unreadable_images_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3))
    whole = encoded(noise)
    damaged = bytearray(whole)
    damaged[1000] ^= 0xFF
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000)
    contents = {
        "a/bomb.png": plain(height=100, width=100),
        "a/cut.png": whole[:2000],
        "a/damaged.png": bytes(damaged),
        "a/empty.png": b"",
        "a/good.png": plain(),
        "b/header.png": whole[:20],
        "b/page.jpg": b"<html>404</html>",
    }
    opened = source(folder(tmp_path, contents))

    table, skipped = read(opened)

    assert table["example_id"].to_pylist() == ["a/good.png"]
    assert opened.classes == 2
    assert [line.partition(": ")[0] for line in skipped] == [
        f"{tmp_path}/{name}" for name in contents if name != "a/good.png"
    ]
    bomb, cut, _, empty, header, page = (line.partition(": ")[2] for line in skipped)
    assert bomb.startswith("Image size (10000 pixels) exceeds limit of 4000 pixels")
    assert cut == "image file is truncated"
    assert header == "Truncated File Read"
    assert empty == page == "is not an image in a format that Pillow knows"
    assert not any("\n" in line for line in skipped)


@pytest.mark.parametrize(
    ("dtype", "suffix", "mode"),
    [(np.uint16, ".png", "I;16"), (np.int32, ".tif", "I"), (np.float32, ".tif", "F")],
)
def test_images_of_more_than_8_bits_per_channel_are_skipped(
    tmp_path: Path, dtype: type, suffix: str, mode: str
) -> None:
    (tmp_path / "class").mkdir()
    path = tmp_path / "class" / f"deep{suffix}"
    Image.fromarray(np.full((2, 3), 1000, dtype)).save(path)

    table, skipped = read(source(tmp_path))

    assert table.num_rows == 0
    assert table.schema == source(tmp_path).schema
    assert skipped == [f"{path}: has over 8 bits per channel (mode {mode}); convert it to 8"]


def test_a_csv_file_names_images_and_classes(tmp_path: Path) -> None:
    elsewhere = folder(tmp_path / "elsewhere", {"b.png": plain((0, 7, 0))})
    path = listed(
        tmp_path / "data",
        f"path,taken,label\nin/a.png,2024,dog\n{elsewhere}/b.png,2023, ant\nin/a.png,2022,cat\n",
        {"in/a.png": plain((9, 0, 0))},
    )
    opened = source(path)

    table, skipped = read(opened)

    assert opened.description == {"name": "images", "images": "3", "classes": "ant, cat, dog"}
    assert (opened.label, opened.classes, opened.ids_are_unique) == ("label", 3, False)
    assert table["example_id"].to_pylist() == [f"{elsewhere}/b.png", "in/a.png", "in/a.png"]
    assert sorted(table["label"].to_pylist()) == [0, 1, 2]
    assert pixels(opened, table)[:, 0, 0].tolist() == [[0, 7, 0], [9, 0, 0], [9, 0, 0]]
    assert skipped == []


def test_a_csv_files_images_may_be_remote(tmp_path: Path) -> None:
    for name, content in (
        ("pictures/a.png", plain()),
        ("pictures/list.csv", b"path,label\na.png,x\nmemory://pictures/a.png,y\n"),
    ):
        with fsspec.open(f"memory://{name}", "wb") as file:
            file.write(content)

    expected = {"a.png": 0, "memory://pictures/a.png": 1}
    assert labels(source("memory://pictures/list.csv")) == expected
    here = listed(tmp_path, "path,label\nmemory://pictures/a.png,z\n")
    assert labels(source(here)) == {"memory://pictures/a.png": 0}


def test_a_remote_folder_is_read() -> None:
    for name in ("cat/a.png", "dog/b.png"):
        with fsspec.open(f"memory://zoo/{name}", "wb") as file:
            file.write(plain())

    assert labels(source("memory://zoo")) == {"cat/a.png": 0, "dog/b.png": 1}


def test_a_csv_files_label_column_may_have_another_name(tmp_path: Path) -> None:
    path = listed(tmp_path, "species,path,label\nbat,a.png,9\n", {"a.png": plain()})
    opened = source(path, label="species")

    assert labels(opened) == {"a.png": 0}
    assert opened.description["classes"] == "bat"
    assert opened.features[2].name == "label"


def test_integers_in_a_csv_file_are_the_classes_numbers(tmp_path: Path) -> None:
    rows = [(f"{name}.png", number) for name, number in zip("abcd", [2, 0, 1, 2], strict=True)]
    text = "".join(f"{name},{number}\n" for name, number in rows)
    opened = source(listed(tmp_path, f"path,label\n{text}", {name: plain() for name, _ in rows}))

    assert labels(opened) == dict(rows)
    assert opened.description["classes"] == "0, 1, 2"


def test_an_image_that_a_csv_file_names_in_vain_is_skipped(tmp_path: Path) -> None:
    path = listed(tmp_path, "path,label\na.png,x\nb.png,y\n")
    folder(tmp_path, {"a.png": plain()})

    table, skipped = read(source(path))

    assert table["example_id"].to_pylist() == ["a.png"]
    assert skipped == [f"{tmp_path}/b.png: no such file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "has a header but no rows"),
        ("file,label\na.png,1\n", "no column 'path'; has: file, label"),
        ("path,class\na.png,1\n", "data.label: no column 'label'; has: path, class"),
        ("path,label,path\na.png,1,b\n", "no column 'path'; has: path, label, path"),
        ("path,label\na.png,x\n,y\n", "row 2: column 'path' is empty"),
        ("path,label\na.png,x\nb.png,y\nc.png, \n", "row 3: column 'label' is empty"),
    ],
)
def test_a_csv_file_that_lacks_something_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = listed(tmp_path, text)

    with pytest.raises(InputError) as refused:
        source(path)

    assert str(refused.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([1, 2, 3], "3 different integers from 1 to 3"),
        ([0, 2, 2], "2 different integers from 0 to 2"),
        ([-1, 0, 1], "3 different integers from -1 to 1"),
    ],
)
def test_integers_with_gaps_are_refused_as_classes(
    tmp_path: Path, numbers: list[int], found: str
) -> None:
    text = "".join(f"{number}.png,{number}\n" for number in numbers)
    path = listed(tmp_path, f"path,label\n{text}")

    with pytest.raises(InputError) as refused:
        source(path)

    assert str(refused.value) == (
        f"{path}: column 'label': holds {found}; number the classes from 0 without gaps, or give "
        "them names"
    )


def test_a_csv_file_that_cannot_be_parsed_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path, "path,label\na.png,x\nb.png,y,z\n")
    with pytest.raises(InputError) as refused:
        source(path)
    assert str(refused.value) == (
        f"{path}: is not proper CSV: CSV parse error: Row #3: Expected 2 columns, got 3: b.png,y,z"
    )

    path.write_bytes(b"path,label\n\xff.png,x\n")
    with pytest.raises(InputError) as refused:
        source(path)
    assert str(refused.value).startswith(f"{path}: is not proper CSV: ")
    assert "invalid UTF8" in str(refused.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        source(folder(tmp_path, {"cat/notes.txt": b"none"}))

    assert str(refused.value) == f"data.path: {tmp_path}: matches no file; {LAYOUT}"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        source(tmp_path / "none")

    assert str(refused.value) == f"{tmp_path}/none: no such file; {LAYOUT}"


@pytest.mark.parametrize("beside", [{}, {"cat/b.png": plain()}], ids=["alone", "beside a class"])
def test_images_in_no_class_are_refused(tmp_path: Path, beside: dict[str, bytes]) -> None:
    folder(tmp_path, {"a.png": plain()} | beside)

    with pytest.raises(InputError) as refused:
        source(tmp_path)

    assert str(refused.value) == (
        f"{tmp_path}/a.png: is in no class's folder below {tmp_path}; {LAYOUT}"
    )


def test_several_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        open_source(DataConfig(source="images", path=["one", "two"]))
    assert str(refused.value) == "data.path: names 2 paths; source 'images' takes one folder"

    folder(tmp_path, {"a.csv": b"path,label\na.png,x", "b.csv": b"path,label\nb.png,x"})
    with pytest.raises(InputError) as refused:
        source(f"{tmp_path}/*.csv")
    assert str(refused.value) == (
        f"data.path: {tmp_path}/*.csv: is 2 files; source 'images' takes one"
    )
