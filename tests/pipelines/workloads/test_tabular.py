from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import parse_config
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import PRESETS as NAMES
from pipelines.workload_config import LabelRule, WorkloadConfig
from pipelines.workloads.base import TensorSpec
from pipelines.workloads.tabular import PRESETS, DenseLayer, Tabular
from pipelines.workloads.tabular_columns import Category

CATEGORICAL = ["cat_00", "cat_01", "cat_02", "cat_03", "str_00", "str_01"]
RULE = {"column": "fare", "share": 0.2}


def seen(
    low: float = 0, high: float = 1, mean: float = 0.25, std: float | None = None, **more: int
) -> ColumnStatistics:
    """Statistics of numbers; by default those of a column of zeros and ones."""
    varies = (mean * (1 - mean)) ** 0.5 if std is None else std
    return ColumnStatistics(examples=10, min=low, max=high, mean=mean, std=varies, **more)


def manifest_of(label: str | None = "label", **columns: tuple[str, ColumnStatistics]) -> Manifest:
    """A manifest of columns, each a type and its statistics."""
    known = columns if label in columns else {"label": ("int64", seen()), **columns}
    statistics = {name: found for name, (_, found) in known.items()}
    return Manifest(
        source={},
        request="",
        source_version="",
        split_shares={"train": 0.8, "eval": 0.2},
        features=[
            Feature(name="example_id", dtype="string"),
            *(Feature(name=name, dtype=dtype) for name, (dtype, _) in known.items()),
        ],
        label=label,
        classes=None,
        statistics={"train": statistics, "eval": statistics},
        shards=[],
        fingerprint="",
    )


def build(manifest: Manifest, preset: str = "tiny", **own: Any) -> Tabular:
    config = WorkloadConfig.model_validate({"name": "tabular", "preset": preset, "tabular": own})
    return Tabular.build(config, manifest)


def refusal(manifest: Manifest, **own: Any) -> str:
    with pytest.raises(InputError) as raised:
        build(manifest, **own)
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


NUMBERS = manifest_of(
    fare=("float32", seen(0, 90, 30.0, 10.0)),
    miles=("float32", seen(0, 9, 2.0, 0.5, missing=1)),
    hour=("int64", seen(0, 23, 12.0, 5.0)),
)
TEXT = ("string", ColumnStatistics(examples=10, elements=10))


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    output = tmp_path_factory.mktemp("clicks")
    data = {"source": "synthetic", "synthetic": {"kind": "tabular", "rows": 2_000}}
    return ingest(parse_config({"name": "clicks", "output": str(output), "data": data}, ""))[0]


@pytest.fixture(scope="module")
def workload(clicks: Dataset) -> Tabular:
    return build(clicks.manifest, categorical=CATEGORICAL)


def test_presets_are_those_that_the_config_knows() -> None:
    assert tuple(PRESETS) == NAMES["tabular"]


def test_a_click_log_gives_numbers_an_indicator_and_codes(workload: Tabular) -> None:
    assert workload.title == "tabular/tiny"
    assert workload.numeric == tuple(f"num_{k:02d}" for k in range(10))
    assert workload.indicated == ("num_07",)
    assert [category.column for category in workload.categories] == CATEGORICAL
    assert workload.features == {
        "numbers": TensorSpec((11,), "float32"),
        "codes": TensorSpec((6,), "int64"),
    }
    assert workload.target == TensorSpec((), "float32")
    assert workload.columns == (*workload.numeric, *CATEGORICAL, "click")
    assert workload.served_columns == (*workload.numeric, *CATEGORICAL)
    assert workload.predictions_per_example == 1


def test_tables_have_a_row_per_known_value_but_no_more_than_there_are_buckets(
    workload: Tabular, clicks: Dataset
) -> None:
    rows = {category.column: category.rows for category in workload.categories}
    products = clicks.manifest.feature("str_01").values

    assert products is not None
    assert rows["cat_00"] == 1 + 10
    assert rows["cat_03"] == 1 + 1_000
    assert rows["str_00"] == 1 + 50
    assert rows["str_01"] == 1 + len(products)


def test_by_default_every_number_is_a_number_and_every_string_is_embedded(clicks: Dataset) -> None:
    workload = build(clicks.manifest, ignored=["num_09"])

    assert [category.column for category in workload.categories] == ["str_00", "str_01"]
    assert workload.numeric[-5:] == ("num_08", "cat_00", "cat_01", "cat_02", "cat_03")


def test_columns_keep_the_datasets_order_whatever_the_configs() -> None:
    workload = build(NUMBERS, numeric=["miles", "fare"], categorical=["hour"])

    assert workload.numeric == ("fare", "miles")
    assert workload.columns == ("fare", "miles", "hour", "label")


def test_layers_have_the_presets_widths(clicks: Dataset) -> None:
    workload = build(clicks.manifest, "dlrm", categorical=CATEGORICAL)

    assert workload.bottom_layers == (
        DenseLayer("bottom_1", 11, 512),
        DenseLayer("bottom_2", 512, 256),
        DenseLayer("bottom_3", 256, 128),
    )
    assert workload.top_layers[0] == DenseLayer("top_1", 128 + 7 * 6 // 2, 1024)
    assert [layer.outputs for layer in workload.top_layers] == [1024, 1024, 512, 256]
    assert workload.head == DenseLayer("head", 256, 1)


def test_the_configs_sizes_come_before_the_presets(clicks: Dataset) -> None:
    own = {"hash_buckets": 7, "embedding_width": 3, "bottom": [5], "top": [4]}
    workload = build(clicks.manifest, categorical=CATEGORICAL, **own)

    assert workload.bottom_layers[-1] == DenseLayer("bottom_2", 5, 3)
    assert workload.top_layers == (DenseLayer("top_1", 3 + 21, 4),)
    assert [category.rows for category in workload.categories[:4]] == [8, 8, 8, 8]


def test_pairs_are_the_strict_lower_triangle_row_by_row() -> None:
    workload = build(NUMBERS, categorical=["hour"])
    more = build(manifest_of(a=TEXT, b=TEXT, c=("float32", seen())))

    assert workload.pairs == (2,)
    assert more.pairs == (3, 6, 7)


def test_parameters_have_the_stated_names_and_layouts() -> None:
    weights = build(NUMBERS, categorical=["hour"], embedding_width=3, bottom=[5], top=[4])

    shapes = {name: value.shape for name, value in weights.initial_weights(0).items()}
    assert shapes == {
        "embedding_hour/embedding": (25, 3),
        "bottom_1/kernel": (3, 5),
        "bottom_1/bias": (5,),
        "bottom_2/kernel": (5, 3),
        "bottom_2/bias": (3,),
        "top_1/kernel": (3 + 1, 4),
        "top_1/bias": (4,),
        "head/kernel": (4, 1),
        "head/bias": (1,),
    }


def test_initial_weights_are_equal_wherever_they_are_made_from_one_seed(workload: Tabular) -> None:
    one, two, other = (workload.initial_weights(seed) for seed in (3, 3, 4))

    for name, value in one.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, two[name])
        assert (not value.any()) if name.endswith("/bias") else (value != other[name]).any()


def test_embeddings_and_kernels_spread_as_the_reference_draws_them(workload: Tabular) -> None:
    weights = workload.initial_weights(0)

    assert weights["embedding_cat_03/embedding"].std() == pytest.approx(
        (3 * 1001) ** -0.5, rel=0.05
    )
    assert weights["top_2/kernel"].std() == pytest.approx((2 / (64 + 32)) ** 0.5, rel=0.05)


def test_forward_flops_agree_with_a_count_by_hand(workload: Tabular) -> None:
    bottom = 2 * (11 * 32 + 32 * 8)
    products = 2 * 7 * 7 * 8
    top = 2 * ((8 + 21) * 64 + 64 * 32 + 32)

    assert workload.forward_flops_per_example() == bottom + products + top == 9_872
    assert workload.training_flops_per_example() == 3 * 9_872


def test_preparing_standardises_the_train_splits_numbers(
    workload: Tabular, clicks: Dataset
) -> None:
    columns = mapped_columns(clicks, "train")

    features, target = workload.prepare(columns, clicks.manifest.statistics["train"])

    numbers = features["numbers"].astype(np.float64)
    missing = np.isnan(columns["num_07"])
    rows = clicks.manifest.rows("train")
    assert (features["numbers"].dtype, features["codes"].dtype) == (np.float32, np.int64)
    assert (features["numbers"].shape, features["codes"].shape) == ((rows, 11), (rows, 6))
    np.testing.assert_allclose(numbers[:, :10].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 0].std(), 1, atol=1e-6)
    np.testing.assert_allclose(numbers[~missing, 7].std(), 1, atol=1e-6)
    np.testing.assert_array_equal(numbers[:, 10], missing)
    assert 0 < missing.sum() == np.count_nonzero(numbers[missing, 7] == 0)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, columns["click"])


def test_codes_are_places_in_the_vocabulary_or_remainders_after_row_0(
    workload: Tabular, clicks: Dataset
) -> None:
    columns = mapped_columns(clicks, "train")
    features, _ = workload.prepare(columns, clicks.manifest.statistics["train"])
    codes = features["codes"]

    np.testing.assert_array_equal(codes[:, 0], columns["cat_00"] + 1)
    np.testing.assert_array_equal(codes[:, 3], columns["cat_03"] % 1_000 + 1)
    np.testing.assert_array_equal(codes[:, 5], columns["str_01"] + 1)
    assert (codes[:, 5] == 0).any()
    for place, category in enumerate(workload.categories):
        assert 0 <= codes[:, place].min() <= codes[:, place].max() < category.rows


def test_hashes_and_negative_numbers_find_a_row_and_missing_ones_row_0() -> None:
    hashed = Category("user", is_text=True, vocabulary=None, values=10)
    whole = Category("zone", is_text=False, vocabulary=None, values=10)

    np.testing.assert_array_equal(hashed.codes(np.array([-1, -2, 0, 2**62, -(2**63)])), [
        0, 9, 1, 2**62 % 10 + 1, -(2**63) % 10 + 1,
    ])  # fmt: skip
    np.testing.assert_array_equal(whole.codes(np.array([-1, -2, 0, 25])), [10, 9, 1, 6])
    np.testing.assert_array_equal(whole.codes(np.array([np.nan, -1.0, 25.0])), [0, 10, 6])


def test_dates_keep_their_digits_and_constants_become_zero() -> None:
    statistics = {
        "fare": seen(0, 0, 0.1, 1e-17),
        "miles": seen(0, 9, 2.0, 0.5),
        "hour": seen(0, 2e9, 1.4e9, 1.0),
    }
    columns: Columns = {
        "fare": np.array([0.1, 0.1]),
        "miles": np.array([np.inf, 3.0], np.float32),
        "hour": np.array([1_400_000_001, 1_399_999_998]),
        "label": np.array([0, 1]),
    }

    features, _ = build(NUMBERS).prepare(columns, statistics)

    np.testing.assert_array_equal(features["numbers"], [[0, 0, 1, 1], [0, 2, -2, 0]])


def test_a_label_may_be_a_share_of_another_column() -> None:
    manifest = manifest_of(
        "tips",
        tips=("float32", seen(0, 9)),
        fare=("float32", seen(0, 90, 30, 10, missing=1)),
        city=TEXT,
    )
    workload = build(manifest, positive_over=RULE, ignored=["fare"])
    columns: Columns = {
        "tips": np.array([2.45, 2.46, 1.0, np.nan, 0.0], np.float32),
        "fare": np.array([12.25, 12.25, np.nan, 1.0, 0.0], np.float32),
        "city": np.zeros(5, np.int64),
    }

    assert workload.positive_over == LabelRule(column="fare", share=0.2)
    assert workload.columns == ("city", "fare", "tips")
    assert workload.served_columns == ("city",)
    np.testing.assert_array_equal(workload.prepare(columns, {})[1], [0, 1, 0, 0, 0])


def test_a_dataset_of_categories_alone_gets_a_constant_number() -> None:
    workload = build(manifest_of(city=TEXT))
    columns: Columns = {"city": np.array([5, -1]), "label": np.array([0.0, 1.0])}

    features, _ = workload.prepare(columns, {})

    np.testing.assert_array_equal(features["numbers"], [[1], [1]])
    np.testing.assert_array_equal(features["codes"], [[6], [0]])
    assert workload.features["numbers"] == TensorSpec((1,), "float32")


def test_a_dataset_of_numbers_alone_has_no_codes() -> None:
    workload = build(NUMBERS)

    assert workload.features == {"numbers": TensorSpec((4,), "float32")}
    assert workload.pairs == ()
    assert workload.forward_flops_per_example() == 2 * (4 * 32 + 32 * 8 + 8 * 64 + 64 * 32 + 32)


def test_the_transforms_settings_are_what_json_can_carry(workload: Tabular) -> None:
    import json

    config = workload.transform_config()

    assert json.loads(json.dumps(config)) == config
    assert config["label"] == "click"
    assert config["categories"][3] == {
        "column": "cat_03",
        "is_text": False,
        "vocabulary": None,
        "values": 1_000,
    }


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            {"numeric": ["fair"]},
            "workload.tabular.numeric: no column 'fair'; the dataset has: label, fare, miles, hour",
        ),
        (
            {"categorical": ["fare"]},
            "workload.tabular.categorical: column 'fare' holds float32; only strings and whole "
            "numbers can be embedded: list it under workload.tabular.numeric",
        ),
        (
            {"ignored": ["label"]},
            "workload.tabular.ignored: 'label' is the label, which is no feature; leave it out",
        ),
        (
            {"numeric": ["hour"], "categorical": ["hour"]},
            "workload.tabular.categorical: column 'hour' is listed under numeric too; once will do",
        ),
        (
            {"ignored": ["fare", "miles", "hour"]},
            "workload.tabular: no column is left to predict from; besides 'label', the dataset "
            "needs numbers or strings that are not ignored",
        ),
        (
            {"positive_over": {"column": "fair", "share": 0.2}},
            "workload.tabular.positive_over.column: 'fair' is no column of the dataset; "
            "name a number among: fare, miles, hour",
        ),
    ],
)
def test_columns_that_cannot_be_what_they_are_listed_as_are_refused(
    own: dict[str, Any], said: str
) -> None:
    assert refusal(NUMBERS, **own) == said


@pytest.mark.parametrize(
    ("column", "holds"),
    [
        (("int64", seen(0, 2, 1.0)), "numbers from 0 to 2 in train"),
        (("int64", seen(0, 1, missing=3)), "numbers from 0 to 1, 3 missing, in train"),
        (("float32", seen(0, 1, 0.5, 0.4)), "numbers between 0 and 1 in train"),
        (("int64", seen(0, 0, 0.0)), "numbers from 0 to 0 in train"),
        (TEXT, "string"),
    ],
    ids=["three values", "missing", "shares", "one value", "text"],
)
def test_a_label_of_anything_but_0_and_1_is_refused(
    column: tuple[str, ColumnStatistics], holds: str
) -> None:
    assert refusal(manifest_of("clicked", clicked=column, x=("float32", seen()))) == (
        f"data.label: 'clicked' holds {holds}; tabular predicts a column of 0 and 1, both in every "
        "split: name another, or set workload.tabular.positive_over"
    )


def test_a_dataset_without_label_is_refused() -> None:
    assert refusal(manifest_of(None)).startswith("data.label: tabular predicts a column; name it")


def test_a_column_without_a_value_to_learn_from_is_refused() -> None:
    empty = ColumnStatistics(examples=10, missing=10)

    assert refusal(manifest_of(x=("float32", empty))) == (
        "workload.tabular.numeric: column 'x' has no value in the train split; "
        "list it under workload.tabular.ignored"
    )


def test_columns_whose_layers_would_have_one_name_are_refused() -> None:
    assert refusal(manifest_of(**{"a b": TEXT, "a-b": TEXT})) == (
        "workload.tabular.categorical: columns 'a b' and 'a-b' would both be embedded by a layer "
        "'embedding_a_b'; rename one of them"
    )


def test_the_taxi_trips_fit_the_shipped_config(tmp_path: Path) -> None:
    """A trip lacks what it may lack in the real file, and tips a fifth of its fare, or more."""
    from pipelines.config import load_config
    from pipelines.environments import PROJECT_ROOT

    header = (
        "pickup_community_area,fare,trip_start_month,trip_start_hour,trip_start_day,"
        "trip_start_timestamp,pickup_latitude,pickup_longitude,dropoff_latitude,dropoff_longitude,"
        "trip_miles,pickup_census_tract,dropoff_census_tract,payment_type,company,trip_seconds,"
        "dropoff_community_area,tips"
    )
    full = "8,10,5,19,6,1400269500,41.9,-87.6,41.8,-87.7,2.5,17031081401,17031081402,{},A,300,7,{}"
    bare = "8,10,5,19,6,1400269500,41.9,-87.6,,,2.5,,17031081403,Cash,,300,,0"
    rows = [full.format("Credit Card", 2.5), full.format("Cash", 2), bare] * 40
    path = tmp_path / "data.csv"
    path.write_text("\n".join([header, *rows]))
    config = load_config(
        PROJECT_ROOT / "configs" / "taxi.yaml", [f"output={tmp_path}", f"data.path={path}"]
    )
    dataset = ingest(config)[0]

    workload = Tabular.build(config.workload, dataset.manifest)

    columns = mapped_columns(dataset, "train")
    _, target = workload.prepare(columns, dataset.manifest.statistics["train"])
    assert len(workload.categories) == 9
    assert workload.indicated == ("dropoff_latitude", "dropoff_longitude")
    np.testing.assert_array_equal(target, columns["tips"] == 2.5)
