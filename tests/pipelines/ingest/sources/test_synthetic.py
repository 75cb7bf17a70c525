import hashlib
import math
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipelines.data_config import DataConfig, SyntheticConfig
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import open_source
from pipelines.ingest.sources.digits import Digits
from pipelines.ingest.sources.synthetic import Synthetic, click_probabilities
from pipelines.ingest.sources.synthetic_text import MarkovText
from pipelines.ingest.sources.synthetic_vision import NoisyPrototypes

KINDS = ("vision", "text", "tabular")
BLOCK_ROWS = {"vision": 8_192, "text": 32_768, "tabular": 65_536}


def opened(kind: str, rows: int, seed: int = 0) -> Synthetic:
    asked = {"kind": kind, "rows": rows, "seed": seed}
    source = open_source(DataConfig.model_validate({"source": "synthetic", "synthetic": asked}))
    assert isinstance(source, Synthetic)
    return source


def refuse_to_skip(reason: str) -> None:
    pytest.fail(f"left an example out: {reason}")


def read(source: Synthetic) -> pa.Table:
    pieces = [piece for each in source.fragments() for piece in source.read(each, refuse_to_skip)]
    assert all(piece.schema == source.schema for piece in pieces)
    return pa.concat_tables(pieces)


def lists(table: pa.Table, name: str) -> np.ndarray:
    flat = table[name].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), -1)


def digest(table: pa.Table) -> str:
    """Of the values, and nothing of how Arrow holds them."""
    return hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()[:16]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_fragments_and_the_last_one_is_cut(kind: str) -> None:
    block = BLOCK_ROWS[kind]
    source = opened(kind, 2 * block + 5)
    fragments = source.fragments()

    assert [each.number for each in fragments] == [0, 1, 2]
    assert [each.name for each in fragments] == [
        "rows from 0",
        f"rows from {block:,}",
        f"rows from {2 * block:,}",
    ]
    assert [
        [piece.num_rows for piece in source.read(each, refuse_to_skip)] for each in fragments
    ] == [[block], [block], [5]]
    assert len(opened(kind, 2 * block).fragments()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_numbered_through(kind: str) -> None:
    block = BLOCK_ROWS[kind]
    ids = read(opened(kind, block + 2))["example_id"].to_pylist()

    assert ids[:2] == ["synthetic-000000000000", "synthetic-000000000001"]
    assert ids[-1] == f"synthetic-{block + 1:012d}"
    assert len(set(ids)) == block + 2
    assert opened(kind, 1).ids_are_unique


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_rows_stay_when_more_are_asked_for(kind: str) -> None:
    more = read(opened(kind, BLOCK_ROWS[kind] + 300))

    assert read(opened(kind, 100)) == more[:100]
    assert read(opened(kind, BLOCK_ROWS[kind] + 3)) == more[: BLOCK_ROWS[kind] + 3]


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_blocks_or_seeds_are_alike(kind: str) -> None:
    source = opened(kind, 2 * BLOCK_ROWS[kind])
    tables = [next(source.read(each, refuse_to_skip)) for each in source.fragments()]
    tables.append(read(opened(kind, BLOCK_ROWS[kind], seed=1)))

    assert len({digest(table.drop_columns("example_id")[:50]) for table in tables}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_fragment_can_be_read_alone_by_a_source_that_travelled(kind: str) -> None:
    source = opened(kind, BLOCK_ROWS[kind] + 10)
    there, last = pickle.loads(pickle.dumps((source, source.fragments()[-1])))  # noqa: S301

    assert list(there.read(last, refuse_to_skip)) == list(source.read(last, refuse_to_skip))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("vision", "2600ccaf3583bc0e"), ("text", "2d00e95fcec6dadf"), ("tabular", "425a193fb1dc0cc2")],
)
def test_the_examples_are_those_of_this_generator_version(kind: str, expected: str) -> None:
    """The same numbers in both environments; others need another GENERATOR_VERSION."""
    assert digest(read(opened(kind, 100))) == expected
    assert opened(kind, 1).description["generator"] == "1"


def test_images_are_like_the_digits() -> None:
    source = opened("vision", 5_000)
    table = read(source)
    digits = Digits(DataConfig())
    pixels, labels = lists(table, "image"), table["label"].to_numpy()

    assert source.features == digits.features
    assert (source.label, source.classes) == (digits.label, digits.classes)
    assert (pixels.min(), pixels.max()) == (0, 16)
    np.testing.assert_array_equal(pixels, pixels.round())
    assert np.bincount(labels, minlength=10).min() > 400
    assert np.bincount(labels).max() < 600  # so that a constant guess is right once in ten


@pytest.mark.parametrize("seed", [0, 1])
def test_a_linear_classifier_learns_the_images(seed: int) -> None:
    table = read(opened("vision", 6_000, seed))
    pixels, labels = lists(table, "image"), table["label"].to_numpy()
    with threadpool_limits(1):  # for so small a problem, threads only wait for one another
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        model.fit(pixels[:5_000], labels[:5_000])

    assert 0.93 < model.score(pixels[5_000:], labels[5_000:]) < 1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_nearest_prototype_tells_the_class_almost_always(seed: int) -> None:
    table = read(opened("vision", 4_000, seed))
    pixels, labels = lists(table, "image"), table["label"].to_numpy()
    prototypes = NoisyPrototypes(np.random.default_rng([seed, 1, 0])).prototypes.reshape(90, 64)
    distances = np.sum(prototypes**2, axis=1) - 2 * pixels @ prototypes.T

    assert np.mean(distances.argmin(axis=1) // 9 == labels) > 0.99


def test_text_is_as_predictable_as_it_says() -> None:
    source = opened("text", 32_768)
    tokens = lists(read(source), "tokens")
    rate = float(source.description["entropy_rate_nats"])
    counts = np.zeros((256, 256))
    np.add.at(counts, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    joint = counts / counts.sum()
    follows = counts / counts.sum(axis=1, keepdims=True)
    conditional = -np.sum(joint * np.log(follows, where=counts > 0, out=np.zeros_like(joint)))
    unigram = joint.sum(axis=0)

    assert source.features[1:] == (Feature(name="tokens", dtype="int64", shape=(129,)),)
    assert (source.label, source.classes) == (None, 256)
    assert (tokens.min(), tokens.max()) == (0, 255)
    assert rate == pytest.approx(1.638817)
    # Counting overestimates what is predictable: by about its 255 * 256 parameters / 2 / tokens.
    bias = 255 * 256 / 2 / counts.sum()
    assert conditional == pytest.approx(rate - bias, abs=0.002)
    assert -np.sum(unigram * np.log(unigram)) > 5.2 > 0.9 * math.log(256) > 3 * rate


def test_what_follows_a_token_has_the_probabilities_that_it_says() -> None:
    tokens = lists(read(opened("text", 32_768)), "tokens")
    for token in (0, 200):
        successors = tokens[:, 1:][tokens[:, :-1] == token]
        shares = np.sort(np.bincount(successors, minlength=256) / len(successors))[::-1]
        np.testing.assert_allclose(shares[:5], [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 4096], atol=0.012)
    assert MarkovText.block_rows * 129 * 8 < 34e6  # bytes of a fragment


def numbers(table: pa.Table) -> np.ndarray:
    """Columns num_00 to num_09, what is missing replaced by the mean: (rows, 10)."""
    columns = [table[f"num_{k:02d}"] for k in range(10)]
    return np.stack([pc.fill_null(each, pc.mean(each)).to_numpy() for each in columns], axis=1)


@pytest.fixture(scope="module")
def clicks() -> pa.Table:
    return read(opened("tabular", 100_000))


def test_a_click_log_has_seventeen_columns(clicks: pa.Table) -> None:
    source = opened("tabular", 1)
    dtypes = {"click": "int64"}
    dtypes |= {f"num_{k:02d}": "float32" for k in range(10)}
    dtypes |= {f"cat_{k:02d}": "int64" for k in range(4)}
    dtypes |= {"str_00": "string", "str_01": "string"}

    assert {each.name: each.dtype for each in source.features[1:]} == dtypes
    assert list(dtypes) == clicks.column_names[1:]
    assert (source.label, source.classes, len(dtypes)) == ("click", 2, 17)
    assert not any(each.shape for each in source.features)


def test_a_click_log_has_values_on_all_scales(clicks: pa.Table) -> None:
    means = [pc.mean(clicks[f"num_{k:02d}"]).as_py() for k in range(10)]
    deviations = [pc.stddev(clicks[f"num_{k:02d}"]).as_py() for k in range(10)]
    log_normal = np.log(clicks["num_03"].to_numpy())

    expected = [0, 40, 1_000, math.exp(0.5), 0.5, -3, 0, 5, 1e6, 0]
    scales = [1, 12, 250, math.sqrt((math.e - 1) * math.e), 0.01, 1, 100, 2, 1e5, 1]
    for mean, deviation, location, scale in zip(means, deviations, expected, scales, strict=True):
        assert mean == pytest.approx(location, abs=0.02 * scale)
        assert deviation == pytest.approx(scale, rel=0.03)
    assert (log_normal.mean(), log_normal.std()) == pytest.approx((0, 1), abs=0.02)


def test_a_click_log_misses_what_it_says(clicks: pa.Table) -> None:
    missing = {name: clicks[name].null_count for name in clicks.column_names}

    assert missing.pop("num_07") == pytest.approx(5_000, abs=250)
    assert missing.pop("str_01") == pytest.approx(2_000, abs=150)
    assert set(missing.values()) == {0}


def test_categories_follow_zipfs_law(clicks: pa.Table) -> None:
    for name, cardinality in (("cat_00", 10), ("cat_01", 100), ("cat_02", 1_000)):
        counts = np.bincount(clicks[name].to_numpy(), minlength=cardinality)
        harmonic = np.sum(1 / np.arange(1, cardinality + 1))
        shares = counts / len(clicks)
        assert len(counts) == cardinality
        np.testing.assert_allclose(shares[:3], 1 / harmonic / np.arange(1, 4), rtol=0.05)
    rare = clicks["cat_03"].to_numpy()
    assert rare.max() < 100_000
    assert len(np.unique(rare)) > 20_000
    assert sorted(set(clicks["str_00"].to_pylist())) == [f"company_{k:03d}" for k in range(50)]
    products = set(clicks["str_01"].to_pylist()) - {None}
    assert products == {f"product_{k:03d}" for k in range(1_000)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clicks_can_be_predicted_as_well_as_the_generator_says(seed: int) -> None:
    source = opened("tabular", 70_000, seed)
    table = read(source)
    clicked = table["click"].to_numpy()
    best = click_probabilities(SyntheticConfig(kind="tabular", rows=70_000, seed=seed))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    learned, held_out = slice(0, 50_000), slice(50_000, None)
    model.fit(numbers(table)[learned], clicked[learned])
    linear = model.predict_proba(numbers(table)[held_out])[:, 1]

    assert best.shape == (70_000,)
    assert 0.2 < clicked.mean() < 0.3
    assert best.mean() == pytest.approx(clicked.mean(), abs=0.006)
    # The probabilities are true if the loss they reach is their own entropy.
    entropy = -np.mean(best * np.log(best) + (1 - best) * np.log(1 - best))
    assert log_loss(clicked, best) == pytest.approx(entropy, abs=0.006)
    reached = roc_auc_score(clicked[held_out], linear)
    assert 0.7 < reached < 0.76
    assert roc_auc_score(clicked[held_out], best[held_out]) > reached + 0.05
    assert log_loss(clicked[held_out], best[held_out]) < log_loss(clicked[held_out], linear) - 0.03


def test_each_group_of_columns_carries_signal(clicks: pa.Table) -> None:
    best = click_probabilities(SyntheticConfig(kind="tabular", rows=100_000))
    logits = np.log(best / (1 - best))
    z0 = clicks["num_00"].to_numpy()
    z1 = (clicks["num_01"].to_numpy() - 40) / 12

    assert np.mean((logits - logits.mean()) * z0 * z1) == pytest.approx(0.5, abs=0.03)
    for name in ("cat_00", "cat_02", "cat_03", "str_00", "str_01"):
        codes = clicks[name].combine_chunks().dictionary_encode()
        codes = pc.fill_null(codes.indices, len(codes.dictionary)).to_numpy()
        frequent = np.flatnonzero(np.bincount(codes) > 300)
        effects: Any = [logits[codes == code].mean() for code in frequent]
        assert np.std(effects) > 0.2
