from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.config import parse_config
from pipelines.errors import InputError
from pipelines.ingest import ingest
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import WorkloadConfig
from pipelines.workloads.base import TensorSpec
from pipelines.workloads.text import PRESETS, Text

SMALL = Text("tiny", layers=2, width=8, heads=2, vocabulary=7, sequence_length=5)


def published(preset: str) -> Text:
    """The preset over GPT-2's vocabulary and context."""
    size = PRESETS[preset]
    return Text(preset, size.layers, size.width, size.heads, 50_257, 1_024)


def parameters(text: Text) -> int:
    """From the shapes alone: the greatest would take gigabytes."""
    dense = sum(inputs * outputs + outputs for _, inputs, outputs in text.dense_layers())
    norms = sum(2 * text.width for _ in text.norms())
    return (text.vocabulary + text.sequence_length) * text.width + dense + norms


def manifest(column: Feature | None = None, **changes: Any) -> Manifest:
    """Of a dataset as ``data.source: text`` would make it, bytes in windows of 6."""
    column = column or Feature(name="tokens", dtype="int64", shape=(6,))
    found = ColumnStatistics(examples=4, elements=24, min=0, max=255)
    fields: dict[str, Any] = {
        "source": {"name": "text"},
        "request": "",
        "source_version": "",
        "split_shares": {"train": 0.8, "eval": 0.2},
        "features": [Feature(name="example_id", dtype="string"), column],
        "label": None,
        "classes": 256,
        "statistics": {split: {column.name: found} for split in ("train", "eval")},
        "shards": [],
        "fingerprint": "",
    }
    return Manifest(**fields | changes)


def build(made: Manifest, **settings: Any) -> Text:
    return Text.build(WorkloadConfig(name="text", **settings), made)


def refusal(made: Manifest, **settings: Any) -> str:
    with pytest.raises(InputError) as refused:
        build(made, **settings)
    return str(refused.value)


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_the_published_sizes_have_the_published_parameters(preset: str, count: int) -> None:
    assert parameters(published(preset)) == count


@pytest.mark.parametrize(("preset", "count"), [("tiny", 445_952), ("small", 10_795_008)])
def test_the_small_presets_suit_bytes(preset: str, count: int) -> None:
    made = replace(published(preset), vocabulary=256, sequence_length=128)

    assert parameters(made) == count
    assert sum(value.size for value in made.initial_weights(0).values()) == count


def test_parameters_have_the_stated_names_and_layouts() -> None:
    shapes = {
        name: value.shape for name, value in replace(SMALL, layers=1).initial_weights(0).items()
    }

    assert shapes == {
        "token_embedding/embedding": (7, 8),
        "position_embedding/embedding": (5, 8),
        "block1_attention_in/kernel": (8, 24),
        "block1_attention_in/bias": (24,),
        "block1_attention_out/kernel": (8, 8),
        "block1_attention_out/bias": (8,),
        "block1_mlp_in/kernel": (8, 32),
        "block1_mlp_in/bias": (32,),
        "block1_mlp_out/kernel": (32, 8),
        "block1_mlp_out/bias": (8,),
        "block1_attention_norm/scale": (8,),
        "block1_attention_norm/bias": (8,),
        "block1_mlp_norm/scale": (8,),
        "block1_mlp_norm/bias": (8,),
        "final_norm/scale": (8,),
        "final_norm/bias": (8,),
    }


def test_initial_weights_are_those_of_gpt2() -> None:
    wide = replace(SMALL, layers=8, width=128, vocabulary=500)

    for name, value in wide.initial_weights(0).items():
        kind = name.rpartition("/")[2]
        assert value.dtype == np.float32
        if kind == "bias":
            assert not value.any()
        elif kind == "scale":
            assert (value == 1).all()
        else:
            deviation = 0.02 / 4 if "_out/" in name else 0.02
            assert value.std() == pytest.approx(deviation, rel=0.1)
            assert abs(value.mean()) < deviation / 5


def test_initial_weights_depend_on_nothing_but_the_seed_and_their_name() -> None:
    deeper = replace(SMALL, layers=3, sequence_length=9).initial_weights(3)

    for name, value in SMALL.initial_weights(3).items():
        np.testing.assert_array_equal(value, SMALL.initial_weights(3)[name])
        if name.startswith(("token", "block1_attention_in", "block1_mlp_in")):
            np.testing.assert_array_equal(value, deeper[name])
    assert not np.array_equal(
        SMALL.initial_weights(3)["block1_mlp_in/kernel"],
        SMALL.initial_weights(4)["block1_mlp_in/kernel"],
    )


def test_flops_follow_the_stated_formula() -> None:
    tokens, width, layers, vocabulary = 1_024, 768, 12, 50_257

    flops = published("gpt2").forward_flops_per_example()

    dense = 24 * layers * width**2
    assert flops == tokens * (dense + 4 * layers * tokens * width + 2 * width * vocabulary)
    assert flops == 291_648_307_200
    assert published("gpt2").training_flops_per_example() == 3 * flops


def test_each_token_is_the_target_of_the_one_before() -> None:
    tokens = np.arange(12).reshape(2, 6)

    features, target = SMALL.prepare({"tokens": tokens, "other": tokens}, {})

    assert list(features) == ["tokens"]
    np.testing.assert_array_equal(features["tokens"], [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]])
    np.testing.assert_array_equal(target, [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]])
    assert features["tokens"].dtype == target.dtype == np.int64
    assert features["tokens"].flags.c_contiguous and target.flags.c_contiguous


def test_what_it_takes_and_predicts() -> None:
    assert SMALL.title == "text/tiny"
    assert SMALL.columns == ("tokens",)
    assert SMALL.features == {"tokens": TensorSpec((5,), "int64")}
    assert SMALL.target == TensorSpec((5,), "int64")
    assert SMALL.predictions_per_example == 5
    assert SMALL.transform_config() == {"column": "tokens", "sequence_length": 5}


@pytest.mark.parametrize(
    ("data", "vocabulary", "length"),
    [
        ({"source": "synthetic", "synthetic": {"kind": "text", "rows": 40}}, 256, 128),
        ({"source": "text", "text": {"sequence_length": 16}}, 256, 16),
        ({"source": "text", "text": {"tokenizer": "bpe", "vocabulary_size": 260}}, 260, 128),
    ],
)
def test_it_fits_the_sources_of_text(
    tmp_path: Path, data: dict[str, Any], vocabulary: int, length: int
) -> None:
    if data["source"] == "text":
        (tmp_path / "book.txt").write_text("A lamp, said the book, and another lamp.\n" * 200)
        data = {**data, "path": str(tmp_path / "book.txt")}
    raw = {"name": "t", "output": str(tmp_path), "workload": {"name": "text"}, "data": data}
    config = parse_config(raw, "test")
    dataset, _ = ingest(config)

    made = Text.build(config.workload, dataset.manifest)

    assert (made.vocabulary, made.sequence_length) == (vocabulary, length)
    assert (made.layers, made.width, made.heads) == (2, 128, 4)
    features, target = made.prepare(mapped_columns(dataset, "train"), {})
    assert features["tokens"].shape == target.shape == (dataset.manifest.rows("train"), length)


def test_the_config_overrides_the_preset() -> None:
    made = build(manifest(), preset="small", text={"layers": 3, "width": 64, "heads": 8})

    assert made == Text("small", 3, 64, 8, vocabulary=256, sequence_length=5)
    with pytest.raises(ValidationError, match="preset 'dlrm' is none of text's"):
        WorkloadConfig(name="text", preset="dlrm")


@pytest.mark.parametrize(
    ("rule", "vocabulary"), [({"max": 299}, 300), ({"values": list(range(280))}, 280)]
)
def test_without_a_source_that_knows_the_vocabulary_the_contract_says_it(
    rule: dict[str, Any], vocabulary: int
) -> None:
    column = Feature(name="tokens", dtype="int64", shape=(6,), **rule)

    assert build(manifest(column, classes=None)).vocabulary == vocabulary
    # Those of a label are no tokens.
    assert build(manifest(column, classes=2, label="spam")).vocabulary == vocabulary


def test_a_vocabulary_that_nobody_knows_is_refused() -> None:
    assert refusal(manifest(classes=None)) == (
        "tokens: the size of its vocabulary is unknown; name a schema in data.expected that says "
        "the column's max"
    )


def test_a_dataset_without_tokens_is_refused() -> None:
    images = Feature(name="image", dtype="float32", shape=(8, 8, 1))

    assert refusal(manifest(images)) == (
        "workload.name: text takes a column 'tokens', which this dataset lacks; it has: "
        "example_id, image; set data.source to text, or workload.name to another"
    )


@pytest.mark.parametrize(
    ("dtype", "shape", "found"),
    [
        ("float32", (6,), "float32 of shape (6,)"),
        ("int64", (), "int64"),
        ("int64", (2, 3), "int64 of shape (2, 3)"),
        ("int64", (1,), "int64 of shape (1,)"),
    ],
)
def test_other_columns_of_that_name_are_refused(dtype: Any, shape: Any, found: str) -> None:
    assert refusal(manifest(Feature(name="tokens", dtype=dtype, shape=shape))) == (
        "workload.name: text takes 'tokens' as int64 of shape (sequence_length + 1,); the dataset "
        f"has {found}"
    )


@pytest.mark.parametrize(("low", "high", "token"), [(-1, 5, "-1"), (0, 256, "256")])
def test_tokens_outside_the_vocabulary_are_refused(low: int, high: int, token: str) -> None:
    found = ColumnStatistics(examples=4, elements=24, min=low, max=high)

    assert refusal(manifest(statistics={"eval": {"tokens": found}})) == (
        f"tokens: the eval split has {token}, outside the vocabulary of 0 to 255; raise the "
        "column's max in data.expected, or mend the data"
    )


def test_missing_tokens_are_refused() -> None:
    found = ColumnStatistics(examples=4, missing=3, elements=6, min=0, max=255)

    assert refusal(manifest(statistics={"train": {"tokens": found}})) == (
        "tokens: 3 are missing from the train split; leave such examples out of the data"
    )


def test_heads_must_divide_the_width() -> None:
    assert refusal(manifest(), text={"heads": 3}) == (
        "workload.text: a width of 128 cannot be split into 3 heads; set workload.text.width to "
        "a multiple of workload.text.heads"
    )
