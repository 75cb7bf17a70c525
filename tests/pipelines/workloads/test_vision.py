from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import VisionWorkloadConfig, WorkloadConfig
from pipelines.workloads.base import TensorSpec
from pipelines.workloads.vision import Block, Convolution, Vision
from pipelines.workloads.vision_presets import PRESETS, VisionSize

TINY = Vision("tiny", (8, 8, 1), 10, PRESETS["tiny"])
WIDE = Vision("x", (7, 9, 3), 5, VisionSize((4, 6, 8), (2, 2, 2), "basic", "none", "gelu"))
PHOTOS = (224, 224, 3)

IMAGES = ColumnStatistics(examples=8, elements=24, mean=100.0, std=50.0, min=0.0, max=255.0)
LABELS = ColumnStatistics(examples=8, elements=8, mean=1.0, std=0.8, min=0.0, max=2.0)
ImagesManifest = Callable[..., Manifest]


@pytest.fixture
def make_manifest(digits: Dataset) -> ImagesManifest:
    """A manifest of small photos in three classes, but for the changes."""

    def make(**changes: Any) -> Manifest:
        changes.setdefault(
            "features",
            [
                Feature(name="image", dtype="uint8", shape=(2, 3, 4)),
                Feature(name="label", dtype="int64"),
            ],
        )
        given = {"image": IMAGES, "photo": IMAGES, "label": LABELS} | changes.pop("columns", {})
        statistics = {"train": given, "eval": given}
        common = {"label": "label", "classes": 3, "statistics": statistics}
        return digits.manifest.model_copy(update=common | changes)

    return make


def parameters(workload: Vision) -> int:
    weights = workload.initial_weights(0)
    return sum(
        value.size for name, value in weights.items() if not name.endswith(("/mean", "/variance"))
    )


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


def test_a_bottleneck_computes_in_a_quarter_of_its_width_and_halves_in_its_3x3() -> None:
    block = Block("a", 8, 16, 2, "bottleneck")

    assert block.convolutions == (
        Convolution("a_conv1", 1, 8, 4, 1),
        Convolution("a_conv2", 3, 4, 4, 2),
        Convolution("a_conv3", 1, 4, 16, 1),
    )
    assert block.norms == ("a_norm1", "a_norm2", "a_norm3")
    assert block.shortcut == Convolution("a_shortcut", 1, 8, 16, 2)


@pytest.mark.parametrize(
    ("shape", "stem", "shrinks"),
    [
        ((64, 64, 3), Convolution("stem", 7, 3, 64, 2), True),
        ((63, 224, 3), Convolution("stem", 3, 3, 64, 1), False),
    ],
)
@pytest.mark.parametrize("preset", ["resnet18", "resnet50"])
def test_the_imagenet_presets_shrink_large_images_at_once(
    preset: str, shape: tuple[int, int, int], stem: Convolution, shrinks: bool
) -> None:
    workload = Vision(preset, shape, 10, PRESETS[preset])

    assert (workload.stem, workload.shrinks) == (stem, shrinks)


def test_the_tiny_preset_has_19562_parameters() -> None:
    stem = 3 * 3 * 1 * 16 + 16
    stage1 = 2 * (3 * 3 * 16 * 16 + 16)
    stage2 = (3 * 3 * 16 * 32 + 32) + (3 * 3 * 32 * 32 + 32) + (1 * 1 * 16 * 32 + 32)
    head = 32 * 10 + 10

    assert stem + stage1 + stage2 + head == 19_562
    assert parameters(TINY) == 19_562


def test_resnet50_lacks_only_the_norms_of_the_shortcuts_that_the_published_one_has() -> None:
    """25,557,032 is the post-activation form's (He et al., 2016a; torchvision)."""
    shortcuts = 2 * (256 + 512 + 1024 + 2048)

    assert parameters(Vision("resnet50", PHOTOS, 1000, PRESETS["resnet50"])) == (
        25_557_032 - shortcuts
    )


def test_resnet18_lacks_only_the_norms_of_the_shortcuts_that_the_published_one_has() -> None:
    """11,689,512 is the post-activation form's; its first stage has no projection."""
    shortcuts = 2 * (128 + 256 + 512)

    assert parameters(Vision("resnet18", PHOTOS, 1000, PRESETS["resnet18"])) == (
        11_689_512 - shortcuts
    )


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


@pytest.mark.parametrize(
    ("normalization", "statistics"), [("batch", ("mean", "variance")), ("group", ())]
)
def test_norms_start_as_identity_and_convolutions_before_them_have_no_biases(
    normalization: Any, statistics: tuple[str, ...]
) -> None:
    size = replace(PRESETS["tiny"], normalization=normalization)

    weights = replace(TINY, size=size).initial_weights(0)

    convolutions = ["stem", "stage1_block1_conv1", "stage1_block1_conv2", "stage2_block1_conv1"]
    convolutions += ["stage2_block1_conv2", "stage2_block1_shortcut"]
    norms = [f"stage{s}_block1_norm{n}" for s in (1, 2) for n in (1, 2)] + ["norm"]
    assert set(weights) == {
        *(f"{name}/kernel" for name in convolutions),
        *(f"{name}/{kind}" for name in norms for kind in ("scale", "bias", *statistics)),
        "head/kernel",
        "head/bias",
    }
    ones, zeros = [1.0] * 16, [0.0] * 16
    start = {"scale": ones, "bias": zeros, "mean": zeros, "variance": ones}
    for kind in ("scale", "bias", *statistics):
        assert weights[f"stage2_block1_norm1/{kind}"].tolist() == start[kind]
    assert len({id(value) for value in weights.values()}) == len(weights)


@pytest.mark.parametrize(("width", "groups"), [(16, 16), (64, 32), (48, 24), (40, 20), (37, 1)])
def test_groups_are_the_most_up_to_32_that_divide_the_channels(width: int, groups: int) -> None:
    assert TINY.groups(width) == groups


def test_the_tiny_presets_first_values_are_those_of_every_release() -> None:
    weights = TINY.initial_weights(0)

    found = [float(weights[f"{name}/kernel"].flat[0]) for name in ("stem", "head")]
    assert found == [-0.8361991047859192, 0.30178579688072205]


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_initial_weights_are_equal_wherever_they_are_made_from_one_seed(preset: str) -> None:
    workload = replace(TINY, size=PRESETS[preset])
    one, two = workload.initial_weights(3), workload.initial_weights(3)

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
    size = replace(PRESETS["tiny"], widths=(16, 32, 64), blocks=(1, 1, 1))
    tiny = TINY.initial_weights(5)
    deeper = replace(TINY, size=size).initial_weights(5)
    shared = [name for name in tiny if not name.startswith("head")]

    assert set(shared) < set(deeper)
    for name in shared:
        # Kernels that end a residual branch are scaled by the number of blocks, by design.
        scale = (2 / 3) ** 0.5 if name.endswith("conv2/kernel") else 1.0
        np.testing.assert_allclose(deeper[name], scale * tiny[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("normalization", "name", "inputs", "scale"),
    [
        ("none", "stage2_block1_conv1", 9 * 16, 1),
        ("none", "stage2_block1_conv2", 9 * 32, 0.5**0.5),
        ("none", "stage1_block1_conv2", 9 * 16, 0.5**0.5),
        ("batch", "stage1_block1_conv2", 9 * 16, 1),
    ],
)
def test_kernels_are_he_normal_and_unnormalised_residual_branches_start_scaled_down(
    normalization: Any, name: str, inputs: int, scale: float
) -> None:
    workload = replace(TINY, size=replace(TINY.size, normalization=normalization))
    kernel = workload.initial_weights(0)[f"{name}/kernel"].astype(np.float64)
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


@pytest.mark.parametrize(
    ("preset", "multiply_adds"), [("resnet18", 1_814_073_344), ("resnet50", 4_089_184_256)]
)
def test_the_imagenet_presets_have_the_published_multiply_adds(
    preset: str, multiply_adds: int
) -> None:
    """Those that torchvision states: 1.81 G and 4.09 G."""
    workload = Vision(preset, PHOTOS, 1000, PRESETS[preset])

    assert workload.forward_flops_per_example() == 2 * multiply_adds


def test_the_workload_is_built_for_the_datasets_images_and_classes(digits: Dataset) -> None:
    workload = Vision.build(WorkloadConfig(), digits.manifest)

    assert workload == TINY
    assert workload.title == "vision/tiny"
    assert workload.columns == ("image", "label")
    assert workload.features == {"image": TensorSpec((8, 8, 1), "float32")}
    assert workload.target == TensorSpec((), "int64")
    assert workload.predictions_per_example == 1
    assert workload.transform_config() == {
        "feature": "image",
        "label": "label",
        "shape": [8, 8, 1],
    }


def test_the_only_column_of_rank_three_may_have_any_name(make_manifest: ImagesManifest) -> None:
    features = [
        Feature(name="label", dtype="int64"),
        Feature(name="photo", dtype="uint8", shape=(2, 3, 4)),
        Feature(name="embedding", dtype="float32", shape=(5,)),
    ]

    workload = Vision.build(WorkloadConfig(), make_manifest(features=features))

    assert workload.columns == ("photo", "label")
    assert workload.features == {"image": TensorSpec((2, 3, 4), "float32")}
    assert (workload.image_shape, workload.classes) == ((2, 3, 4), 3)


def test_the_config_may_change_every_part_of_a_preset(make_manifest: ImagesManifest) -> None:
    changes = VisionWorkloadConfig(
        widths=[8, 16, 32],
        blocks=[1, 2, 1],
        block="bottleneck",
        normalization="group",
        activation="relu",
    )

    workload = Vision.build(WorkloadConfig(preset="small", vision=changes), make_manifest())

    assert workload.size == VisionSize((8, 16, 32), (1, 2, 1), "bottleneck", "group", "relu")
    assert Vision.build(WorkloadConfig(preset="small"), make_manifest()).size == PRESETS["small"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"widths": [8, 16, 32]},
            "workload.vision.blocks: names 2 stages, widths name 3; give both, equally long",
        ),
        (
            {"widths": [8, 18], "block": "bottleneck"},
            "workload.vision.widths: a bottleneck block computes in a quarter of its width; "
            "give multiples of 4, not [8, 18]",
        ),
    ],
    ids=["other stages", "no quarter"],
)
def test_a_size_that_is_no_network_is_refused(
    make_manifest: ImagesManifest, changes: dict[str, Any], message: str
) -> None:
    config = WorkloadConfig(vision=VisionWorkloadConfig(**changes))

    with pytest.raises(InputError) as raised:
        Vision.build(config, make_manifest())

    assert str(raised.value) == message


IMAGE = Feature(name="image", dtype="uint8", shape=(2, 3, 4))
LABEL = Feature(name="label", dtype="int64")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": [LABEL]}, "the dataset has: label (int64)"),
        (
            {"features": [Feature(name="image", dtype="float32", shape=(64,)), LABEL]},
            "the dataset has: image (float32 of shape (64,)), label (int64)",
        ),
        (
            {"features": [Feature(name="image", dtype="int64", shape=(2, 3, 4)), LABEL]},
            "the dataset has: image (int64 of shape (2, 3, 4)), label (int64)",
        ),
        (
            {"columns": {"image": IMAGES.model_copy(update={"missing": 1})}},
            "column 'image' has missing or not finite ones",
        ),
        ({"columns": {"image": IMAGES.model_copy(update={"std": 0.0})}}, "are alike"),
        ({"label": None}, "name its column in data.label"),
        (
            {"features": [IMAGE, Feature(name="label", dtype="string")]},
            "'label' is string",
        ),
        ({"classes": None}, "'label' is int64 with too many values to be classes"),
        (
            {"columns": {"label": LABELS.model_copy(update={"missing": 1})}},
            "column 'label' has missing ones",
        ),
        (
            {"columns": {"label": LABELS.model_copy(update={"min": 1.0, "max": 3.0})}},
            "'label' has 1 to 3, number them anew in the source",
        ),
    ],
)
def test_a_dataset_that_cannot_feed_it_is_refused_in_one_line(
    make_manifest: ImagesManifest, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        Vision.build(WorkloadConfig(), make_manifest(**changes))

    assert message in str(raised.value)
    assert str(raised.value).startswith("workload.name: vision ")
    assert len(str(raised.value).splitlines()) == 1


def test_preparing_standardises_the_train_split(digits: Dataset) -> None:
    features, labels = TINY.prepare(digits.columns("train"), digits.manifest.statistics["train"])

    assert list(features) == ["image"]
    images = features["image"]
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert images.shape == (digits.manifest.rows("train"), 8, 8, 1)
    assert images.astype(np.float64).mean() == pytest.approx(0, abs=1e-5)
    assert images.astype(np.float64).std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(labels, digits.columns("train")["label"])


def test_preparing_uses_the_train_splits_statistics_for_every_split(digits: Dataset) -> None:
    columns, fitted = digits.columns("eval"), digits.manifest.statistics["train"]["image"]

    features, _ = TINY.prepare(columns, digits.manifest.statistics["train"])

    images = features["image"]
    np.testing.assert_allclose(images * fitted.std + fitted.mean, columns["image"], atol=1e-5)
    assert abs(images.mean()) > 1e-5


def test_preparing_leaves_the_columns_as_they_are_and_takes_bytes() -> None:
    workload = replace(TINY, image_shape=(1, 2, 1))
    raw = np.array([[[[0], [255]]], [[[100], [50]]]], np.uint8)

    features, labels = workload.prepare(
        {"image": raw, "label": np.array([1, 0])}, {"image": IMAGES, "label": LABELS}
    )

    assert features["image"].ravel().tolist() == [-2.0, np.float32(3.1), 0.0, -1.0]
    assert raw.ravel().tolist() == [0, 255, 100, 50]
    assert labels.tolist() == [1, 0]
    floats = raw.astype(np.float32)
    workload.prepare({"image": floats, "label": np.array([1, 0])}, {"image": IMAGES})
    np.testing.assert_array_equal(floats, raw)
