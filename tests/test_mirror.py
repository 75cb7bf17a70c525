"""Holds the mirror: files, public names and signatures of the twins, read from their sources."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipelines.environments import PROJECT_ROOT
from pipelines.metrics import METRICS

TF, TORCH = "tf_pipeline", "torch_pipeline"

EXTRAS: dict[tuple[str, str, str], str] = {
    (TF, "train.py", "run_fn"): "TFX Trainer's entry point",
    (TF, "transform.py", "preprocessing_fn"): "TensorFlow Transform's entry point",
    (TF, "transform.py", "raw_feature_spec"): "a tf.Example is parsed by a specification",
    (TF, "data.py", "list_columns"): "TFX's Arrow code wants every column as a list",
    (TF, "evaluate.py", "build_eval_config"): "TFX's Evaluator takes a config...",
    (TF, "evaluate.py", "read_metrics"): "... and reports under TFMA's own names, ...",
    (TORCH, "evaluate.py", "evaluate_exported"): "... which its twin in the KFP DAG carries out",
    (TF, "pipeline.py", "ArrowParquetExecutor"): "TFX's hook for reading Parquet",
    (TORCH, "export.py", "MODEL_NAME"): "a torch.export program is a file, a SavedModel a folder",
    (TORCH, "export.py", "CONFIG_NAME"): "vocabularies lie beside it, since it knows no text",
    (TORCH, "pipeline.py", "Outputs"): "a KFP pipeline declares its outputs by a type",
    **{
        (TORCH, "pipeline.py", name): "a KFP component is a function; TFX brings its own"
        for name in ("validate", "transform", "train", "evaluate", "bless", "push")
    },
}
"""(package, file, name) -> why only one of the twins has it."""

NOUNS: dict[str, tuple[str, str]] = {
    "a strategy": ("tf.distribute.Strategy", "Strategy"),  # both are their framework's base class
    "a model": ("keras.Model", "nn.Module"),
    "batches": ("tf.data.Dataset", "DataLoader[_Batch]"),
    "a tensor": ("tf.Tensor", "Tensor"),
    "an optimizer": ("keras.optimizers.Optimizer", "torch.optim.Optimizer"),
    "a DAG": ("tfx.dsl.Pipeline", "dsl.base_component.BaseComponent"),
}
"""What signatures may name differently, since it is the framework's own type: TensorFlow's word
and PyTorch's."""

TEST_EXTRAS: dict[tuple[str, str, str], str] = {
    (TORCH, "test_strategy.py", "test_compressed_gradients_change_the_losses_little"): (
        "tf.distribute compresses none"
    ),
    (TORCH, "test_strategy.py", "test_mixed_precision_is_the_same_under_every_strategy"): (
        "DeepSpeed brings a mixed precision of its own, which is not used"
    ),
    (TORCH, "test_train.py", "test_torchrun_starts_workers_that_train_together"): (
        "TensorFlow has no launcher of its own"
    ),
    (TF, "test_transform.py", "test_list_columns_keep_zeros_on_their_way_to_tf_examples"): (
        "list_columns is an extra itself"
    ),
    (TF, "workloads/test_vision.py", "test_a_saved_model_for_serving_takes_any_batch"): (
        "what is exported differs by nature"
    ),
    (TORCH, "workloads/test_vision.py", "test_a_compiled_program_for_serving_takes_any_batch"): (
        "what is exported differs by nature"
    ),
    (TORCH, "workloads/test_vision.py", "test_the_flops_are_what_torch_counts"): (
        "PyTorch brings a counter of FLOPs"
    ),
    (TORCH, "workloads/test_text.py", "test_pytorch_counts_the_stated_flops"): (
        "PyTorch brings a counter of FLOPs"
    ),
    (TF, "test_optimizer.py", "test_gradients_are_clipped_by_their_global_norm"): (
        "Lightning's Trainer clips"
    ),
    (TF, "test_model.py", "test_what_lies_inside_blocks_is_computed_twice_if_recomputed"): (
        "a traced graph shows what it computes"
    ),
    (TF, "test_train.py", "test_several_steps_per_call_train_as_one_after_the_other"): (
        "Lightning takes one step at a time"
    ),
    (TF, "test_train.py", "test_workers_of_parameter_servers_lower_the_loss_together"): (
        "PyTorch has no parameter servers"
    ),
    (TF, "test_train.py", "test_parameter_servers_apply_every_update_at_its_steps_rate"): (
        "PyTorch has no parameter servers"
    ),
    (TF, "test_checkpoint.py", "test_parameter_servers_go_on_with_the_steps_that_are_left"): (
        "PyTorch has no parameter servers"
    ),
    (TORCH, "test_checkpoint.py", "test_torchrun_starts_dead_workers_again_and_the_run_goes_on"): (
        "TensorFlow has no launcher of its own"
    ),
    (TF, "test_export.py", "test_serialised_examples_get_the_same_probabilities"): (
        "serving_examples is what TFX's Evaluator asks; torch.export has one signature"
    ),
}

A_METRIC = re.compile(r"[a-z]+(_[a-z]+)*_(seconds|bytes|per_second|loss|accuracy)")


FILE_EXTRAS: dict[tuple[str, str], str] = {
    (TORCH, "sharding.py"): "tf.distribute has no strategy that shards a model",
    (TORCH, "workloads/block.py"): "Keras recomputes by a wrapper, FSDP shards by a class",
    (TF, "recompute.py"): "torch.utils.checkpoint is one call",
    (TORCH, "workloads/batch_norm.py"): "Keras has one that synchronises on CPUs too",
}
"""(package, file) -> why only one of the twins has it."""


def files(folder: str) -> list[str]:
    root = PROJECT_ROOT / folder
    found = {str(path.relative_to(root)) for path in root.rglob("*.py")}
    return sorted(file for file in found if (folder, file) not in FILE_EXTRAS)


FILES = sorted({*files(TF), *files(TORCH)})

TF_TEST_FILES = {
    "test_contract.py": "TFX enforces the contract as a schema of its own; kfp's step reads ours",
    "test_tfrecord_source.py": "holds our reader of TFRecords to files that TensorFlow wrote",
}
"""Test files of one side only, each with its reason."""


@cache
def parse(package: str, file: str) -> ast.Module:
    return ast.parse((PROJECT_ROOT / package / file).read_text())


def names_bound_by(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def public_names(package: str, file: str) -> list[str]:
    """Functions, classes and constants at the top level, in the order of the source."""
    bound = [name for statement in parse(package, file).body for name in names_bound_by(statement)]
    return [name for name in bound if not name.startswith("_")]


def declared_names(package: str, file: str) -> list[str] | None:
    for statement in parse(package, file).body:
        if "__all__" in names_bound_by(statement):
            return ast.literal_eval(statement.value)
    return None


def without_extras(package: str, file: str, names: list[str] | None) -> list[str] | None:
    return names and [name for name in names if (package, file, name) not in EXTRAS]


def functions(package: str, file: str) -> dict[str, ast.FunctionDef]:
    return {
        statement.name: statement
        for statement in parse(package, file).body
        if isinstance(statement, ast.FunctionDef)
        and not statement.name.startswith("_")
        and (package, file, statement.name) not in EXTRAS
    }


def in_nouns(annotation: ast.expr | None, package: str) -> str | None:
    """The annotation with the framework's own types replaced by what they stand for."""
    if annotation is None:
        return None
    text = ast.unparse(annotation)
    for noun, words in NOUNS.items():
        text = re.sub(rf"(?<![\w.]){re.escape(words[package == TORCH])}(?![\w.])", noun, text)
    return text


def signature(function: ast.FunctionDef, package: str) -> list[str]:
    """One line per parameter, with its kind, annotation and default; last the returned type."""
    asked = function.args
    positional = [*asked.posonlyargs, *asked.args]
    defaults = [None] * (len(positional) - len(asked.defaults)) + list(asked.defaults)
    parameters = [
        ("positional-only" if number < len(asked.posonlyargs) else "positional", *parameter)
        for number, parameter in enumerate(zip(positional, defaults, strict=True))
    ]
    if asked.vararg:
        parameters.append(("*", asked.vararg, None))
    parameters += [
        ("keyword-only", *parameter)
        for parameter in zip(asked.kwonlyargs, asked.kw_defaults, strict=True)
    ]
    if asked.kwarg:
        parameters.append(("**", asked.kwarg, None))
    lines = [
        f"{kind} {argument.arg}: {in_nouns(argument.annotation, package)}"
        f"{f' = {ast.unparse(default)}' if default else ''}"
        for kind, argument, default in parameters
    ]
    return [*lines, f"-> {in_nouns(function.returns, package)}"]


def test_the_twins_have_the_same_files() -> None:
    assert files(TF) == files(TORCH)
    assert {"data.py", "train.py", "evaluate.py", "pipeline.py"} <= set(files(TF))


@pytest.mark.parametrize("file", FILES)
def test_both_files_begin_with_a_docstring(file: str) -> None:
    lacking = [package for package in (TF, TORCH) if not ast.get_docstring(parse(package, file))]

    assert lacking == []


@pytest.mark.parametrize("file", FILES)
def test_both_files_have_the_same_public_names_in_the_same_order(file: str) -> None:
    names = {
        package: without_extras(package, file, public_names(package, file))
        for package in (TF, TORCH)
    }

    assert names[TF] == names[TORCH]


@pytest.mark.parametrize("file", FILES)
def test_both_files_declare_the_same_names(file: str) -> None:
    declared = {
        package: without_extras(package, file, declared_names(package, file))
        for package in (TF, TORCH)
    }

    assert declared[TF] == declared[TORCH]


@pytest.mark.parametrize("file", FILES)
def test_both_files_functions_have_the_same_signatures(file: str) -> None:
    found = {
        package: {
            name: signature(function, package)
            for name, function in functions(package, file).items()
        }
        for package in (TF, TORCH)
    }

    assert found[TF] == found[TORCH]


@pytest.mark.parametrize("file", FILES)
def test_both_files_functions_have_a_docstring(file: str) -> None:
    lacking = [
        f"{package}.{name}"
        for package in (TF, TORCH)
        for name, function in functions(package, file).items()
        if not ast.get_docstring(function)
    ]

    assert lacking == []


def test_every_allowed_extra_is_still_there_and_still_without_a_twin() -> None:
    twin = {TF: TORCH, TORCH: TF}
    stale = [
        (package, file, name)
        for package, file, name in EXTRAS
        if name not in public_names(package, file) or name in public_names(twin[package], file)
    ]

    assert stale == []


def test_every_mapped_type_is_still_named_by_a_signature_on_both_sides() -> None:
    said = {
        package: " ".join(
            line
            for file in FILES
            for function in functions(package, file).values()
            for line in signature(function, package)
        )
        for package in (TF, TORCH)
    }
    aliases = {
        package: in_nouns(alias.value, package)
        for package in (TF, TORCH)
        for alias in parse(package, "transform.py").body
        if names_bound_by(alias) == ["Tensors"] and isinstance(alias, ast.Assign)
    }

    assert aliases == {TF: "dict[str, a tensor]", TORCH: "dict[str, a tensor]"}
    for noun in NOUNS.keys() - {"a tensor"}:
        assert noun in said[TF]
        assert noun in said[TORCH]


def calls_of(tree: ast.AST, *methods: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=method)):
                if method in methods and ast.unparse(owner).endswith("recorder"):
                    yield node


def recorded_metrics(package: str) -> set[str]:
    return {
        str(ast.literal_eval(call.args[0]))
        for file in files(package)
        for call in calls_of(parse(package, file), "add", "phase")
    }


def strings_in(path: Path) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_both_twins_record_the_same_metrics_and_all_are_in_the_table() -> None:
    assert recorded_metrics(TF) == recorded_metrics(TORCH) == {"build_seconds"}
    assert recorded_metrics(TF) <= set(METRICS)


@pytest.mark.parametrize("package", [TF, TORCH])
def test_whatever_reads_like_a_metric_is_in_the_table(package: str) -> None:
    said = {
        text
        for file in files(package)
        for text in strings_in(PROJECT_ROOT / package / file)
        if A_METRIC.fullmatch(text)
    }
    # A function of loss.py, and TensorFlow Model Analysis's own name.
    theirs = {"mean_loss", "sparse_categorical_accuracy"}

    assert "build_seconds" in said
    assert said - theirs <= set(METRICS)


@pytest.mark.parametrize(
    "file",
    [
        "anatomy.py",
        "anatomy_run.py",
        "worker_run.py",
        "recorder.py",
        "saver.py",
        "training_run.py",
        "workloads/evaluation.py",
    ],
)
def test_what_both_share_names_only_metrics_of_the_table(file: str) -> None:
    said = {
        text for text in strings_in(PROJECT_ROOT / "pipelines" / file) if A_METRIC.fullmatch(text)
    }

    assert said
    assert said <= set(METRICS)


@cache
def test_names(package: str, file: str) -> list[str]:
    return [
        name
        for name in public_names(f"tests/{package}", file)
        if name.startswith("test_") and (package, file, name) not in TEST_EXTRAS
    ]


test_names.__test__ = False  # type: ignore[attr-defined]


def test_the_twins_tests_have_the_same_files() -> None:
    assert set(files(f"tests/{TF}")) - set(TF_TEST_FILES) == set(files(f"tests/{TORCH}"))
    paths = [Path(file) for file in files(TF) if not Path(file).name.startswith("__")]
    modules = {str(path.with_name(f"test_{path.name}")) for path in paths}
    assert modules | {"test_main.py", "conftest.py"} == set(files(f"tests/{TORCH}"))


@pytest.mark.parametrize("file", files(f"tests/{TORCH}"))
def test_the_twins_tests_have_the_same_names_in_the_same_order(file: str) -> None:
    assert test_names(TF, file) == test_names(TORCH, file)
    assert test_names(TF, file) or file == "conftest.py"


def test_every_allowed_extra_test_is_still_there() -> None:
    stale = [
        extra
        for extra in TEST_EXTRAS
        if extra[2] not in public_names(f"tests/{extra[0]}", extra[1])
    ]

    assert stale == []
