from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.config import WorkloadConfig
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import Feature
from pipelines.workloads import get_workload
from pipelines.workloads.vision import PRESETS, Block, Vision

TINY = PRESETS["tiny"]
WIDE = replace(TINY, image_shape=(7, 9, 3), widths=(4, 6, 8), blocks_per_stage=2, classes=5)


def test_the_tiny_preset_has_two_stages_of_one_block() -> None:
    assert list(TINY.blocks()) == [
        Block("stage1_block1", input_width=16, width=16, stride=1),
        Block("stage2_block1", input_width=16, width=32, stride=2),
    ]
    assert [block.projects for block in TINY.blocks()] == [False, True]


def test_the_first_block_of_every_stage_but_the_first_halves_the_image() -> None:
    found = [(block.name, block.input_width, block.width, block.stride) for block in WIDE.blocks()]

    assert found == [
        ("stage1_block1", 4, 4, 1),
        ("stage1_block2", 4, 4, 1),
        ("stage2_block1", 4, 6, 2),
        ("stage2_block2", 6, 6, 1),
        ("stage3_block1", 6, 8, 2),
        ("stage3_block2", 8, 8, 1),
    ]


def test_a_shortcut_projects_where_size_or_width_change() -> None:
    assert Block("a", 8, 8, 2).projects
    assert Block("a", 4, 8, 1).projects
    assert not Block("a", 8, 8, 1).projects


def test_the_tiny_preset_has_19562_parameters() -> None:
    stem = 3 * 3 * 1 * 16 + 16
    stage1 = 2 * (3 * 3 * 16 * 16 + 16)
    stage2 = (3 * 3 * 16 * 32 + 32) + (3 * 3 * 32 * 32 + 32) + (1 * 1 * 16 * 32 + 32)
    head = 32 * 10 + 10

    assert stem + stage1 + stage2 + head == 19_562
    assert sum(value.size for value in TINY.initial_weights(0).values()) == 19_562


def test_parameters_have_the_stated_names_and_layouts() -> None:
    shapes = {name: value.shape for name, value in TINY.initial_weights(0).items()}

    assert shapes == {
        "stem/kernel": (3, 3, 1, 16),
        "stem/bias": (16,),
        "stage1_block1_conv1/kernel": (3, 3, 16, 16),
        "stage1_block1_conv1/bias": (16,),
        "stage1_block1_conv2/kernel": (3, 3, 16, 16),
        "stage1_block1_conv2/bias": (16,),
        "stage2_block1_conv1/kernel": (3, 3, 16, 32),
        "stage2_block1_conv1/bias": (32,),
        "stage2_block1_conv2/kernel": (3, 3, 32, 32),
        "stage2_block1_conv2/bias": (32,),
        "stage2_block1_shortcut/kernel": (1, 1, 16, 32),
        "stage2_block1_shortcut/bias": (32,),
        "head/kernel": (32, 10),
        "head/bias": (10,),
    }


def test_initial_weights_are_equal_wherever_they_are_made_from_one_seed() -> None:
    one, two = TINY.initial_weights(3), TINY.initial_weights(3)

    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
        assert value.dtype == np.float32


def test_seeds_differ_in_every_kernel_and_share_zero_biases() -> None:
    one, two = TINY.initial_weights(0), TINY.initial_weights(1)

    for name, value in one.items():
        if name.endswith("/bias"):
            assert not value.any()
            assert not two[name].any()
        else:
            assert not np.isclose(value, two[name]).all()


def test_no_two_kernels_start_out_alike() -> None:
    weights = TINY.initial_weights(0)
    conv1 = weights["stage1_block1_conv1/kernel"]
    conv2 = weights["stage1_block1_conv2/kernel"]

    assert not np.allclose(conv1 / conv1.std(), conv2 / conv2.std())


def test_a_parameter_does_not_move_when_others_are_added() -> None:
    tiny = TINY.initial_weights(5)
    deeper = replace(TINY, widths=(16, 32, 64)).initial_weights(5)
    shared = [name for name in tiny if not name.startswith("head")]

    assert set(shared) < set(deeper)
    for name in shared:
        # Kernels that end a residual branch are scaled by the number of blocks, by design.
        scale = (2 / 3) ** 0.5 if name.endswith("conv2/kernel") else 1.0
        np.testing.assert_allclose(deeper[name], scale * tiny[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "scale"),
    [
        ("stage2_block1_conv1", 9 * 16, 1),
        ("stage2_block1_conv2", 9 * 32, 0.5**0.5),
        ("stage1_block1_conv2", 9 * 16, 0.5**0.5),
    ],
)
def test_kernels_are_he_normal_and_residual_branches_start_scaled_down(
    name: str, inputs: int, scale: float
) -> None:
    kernel = TINY.initial_weights(0)[f"{name}/kernel"].astype(np.float64)
    deviation = scale * (2 / inputs) ** 0.5

    assert kernel.std() == pytest.approx(deviation, rel=0.05)
    assert abs(kernel.mean()) < 4 * deviation / kernel.size**0.5


def test_forward_flops_of_the_tiny_preset_agree_with_a_count_by_hand() -> None:
    # A multiply-add is two operations; 8x8 images until stage 2 halves them to 4x4.
    stem = 2 * (3 * 3 * 1) * 16 * (8 * 8)
    stage1_conv1 = 2 * (3 * 3 * 16) * 16 * (8 * 8)
    stage1_conv2 = 2 * (3 * 3 * 16) * 16 * (8 * 8)
    stage2_conv1 = 2 * (3 * 3 * 16) * 32 * (4 * 4)
    stage2_conv2 = 2 * (3 * 3 * 32) * 32 * (4 * 4)
    stage2_shortcut = 2 * (1 * 1 * 16) * 32 * (4 * 4)
    head = 2 * 32 * 10
    by_hand = (
        stem + stage1_conv1 + stage1_conv2 + stage2_conv1 + stage2_conv2 + stage2_shortcut + head
    )

    assert by_hand == 1_067_648
    assert TINY.forward_flops_per_example() == by_hand
    assert TINY.training_flops_per_example() == 3 * by_hand


def test_forward_flops_of_odd_images_count_what_padding_makes_of_them() -> None:
    # 7x9 -> 4x5 -> 2x3: a 3x3 convolution of stride 2 with one pixel of padding rounds up.
    stem = 2 * 9 * 3 * 4 * 63
    stage1 = 4 * (2 * 9 * 4 * 4 * 63)
    stage2 = (2 * 9 * 4 * 6 + 3 * (2 * 9 * 6 * 6) + 2 * 4 * 6) * 20
    stage3 = (2 * 9 * 6 * 8 + 3 * (2 * 9 * 8 * 8) + 2 * 6 * 8) * 6
    head = 2 * 8 * 5

    assert WIDE.forward_flops_per_example() == stem + stage1 + stage2 + stage3 + head


def test_every_convolution_of_the_flop_count_is_one_of_the_weights() -> None:
    """Kernel elements times the pixels they are applied to, from the weights themselves."""
    pixels = {"stem": 64, "stage1": 64, "stage2": 16, "head": 1}
    kernels = {
        name: value for name, value in TINY.initial_weights(0).items() if name.endswith("/kernel")
    }

    flops = sum(
        2 * value.size * pixels[name.partition("_")[0].partition("/")[0]]
        for name, value in kernels.items()
    )

    assert TINY.forward_flops_per_example() == flops


def test_the_title_names_workload_and_preset() -> None:
    assert TINY.title == "vision/tiny"
    assert TINY.elements_per_example == 64


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_filed_under_their_own_name(name: str) -> None:
    assert PRESETS[name].preset == name


def test_the_digits_can_feed_the_tiny_preset(digits: Dataset) -> None:
    TINY.check_dataset(digits.manifest)


@pytest.mark.parametrize(
    "workload",
    [replace(TINY, image_shape=(28, 28, 1)), replace(TINY, classes=100)],
    ids=["other images", "other classes"],
)
def test_a_dataset_of_other_images_or_classes_is_refused(digits: Dataset, workload: Vision) -> None:
    with pytest.raises(InputError) as raised:
        workload.check_dataset(digits.manifest)

    assert str(raised.value) == (
        f"workload.preset: vision/tiny takes images of {workload.image_shape} in "
        f"{workload.classes} classes; the dataset has (8, 8, 1) in 10"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"features": [Feature(name="label", dtype="int64")]},
        {"label": "digit"},
        {
            "features": [
                Feature(name="image", dtype="string", shape=(8, 8, 1)),
                Feature(name="label", dtype="int64"),
            ]
        },
        {"features": [Feature(name="image", dtype="float32", shape=(8, 8, 1))]},
    ],
    ids=["no image", "another label", "image is text", "no label"],
)
def test_a_dataset_without_the_columns_that_the_model_reads_is_refused(
    digits: Dataset, changes: dict[str, Any]
) -> None:
    manifest = digits.manifest.model_copy(update=changes)

    with pytest.raises(InputError) as raised:
        TINY.check_dataset(manifest)
    assert len(str(raised.value).splitlines()) == 1


def test_the_configs_thresholds_come_before_the_workloads() -> None:
    chosen = get_workload(WorkloadConfig(thresholds={"eval_accuracy": 0.5}))

    assert chosen.thresholds == {"eval_accuracy": 0.5}
    assert get_workload(WorkloadConfig()).thresholds == {"eval_accuracy": 0.95}
    assert TINY.thresholds == {"eval_accuracy": 0.95}


def test_a_threshold_for_an_unknown_metric_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError) as raised:
        get_workload(WorkloadConfig(thresholds={"eval_acuracy": 0.5, "beauty": 1}))

    assert str(raised.value) == (
        "workload.thresholds: beauty, eval_acuracy is no metric that vision is judged by; "
        "it has: eval_accuracy"
    )


def test_preparing_standardises_the_train_split(digits: Dataset) -> None:
    features, labels = TINY.prepare(digits.columns("train"), digits.manifest.statistics["train"])

    assert (features.dtype, labels.dtype) == (np.float32, np.int64)
    assert features.shape == (digits.manifest.rows("train"), 8, 8, 1)
    assert features.astype(np.float64).mean() == pytest.approx(0, abs=1e-5)
    assert features.astype(np.float64).std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(labels, digits.columns("train")["label"])


def test_preparing_uses_the_train_splits_statistics_for_every_split(digits: Dataset) -> None:
    columns, fitted = digits.columns("eval"), digits.manifest.statistics["train"]["image"]

    features, _ = TINY.prepare(columns, digits.manifest.statistics["train"])

    np.testing.assert_allclose(features * fitted.std + fitted.mean, columns["image"], atol=1e-5)
    assert abs(features.mean()) > 1e-5
