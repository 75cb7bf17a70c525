import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.recorder import Recorder
from pipelines.saver import Unsaved
from pipelines.strategies import STRATEGIES
from pipelines.worker import Worker
from pipelines.workloads import Vision
from torch_pipeline.evaluate import evaluate
from torch_pipeline.model import weights_of
from torch_pipeline.strategy import build_strategy, describe_software, fence, gather_over_workers
from torch_pipeline.train import train

GATHER = """
import json
from pathlib import Path
import numpy as np
from pipelines.config import load_config
from pipelines.worker import Worker
from torch_pipeline.strategy import build_strategy, gather_over_workers

worker = Worker.from_environment()
strategy = build_strategy(load_config(Path({config!r})), worker)
mine = np.array([worker.rank + 0.1, -(10.0**300), 2.0**53])
gathered = [gather_over_workers(strategy, values) for values in (mine, mine[:1])]
print(json.dumps([[str(found.dtype), found.tolist()] for found in gathered]))
"""

TRAIN = """
import json
from pathlib import Path
import numpy as np
from pipelines.config import load_config
from pipelines.ingest import Dataset
from pipelines.recorder import Recorder
from pipelines.saver import Unsaved
from pipelines.worker import Worker
from pipelines.workloads import get_workload
from torch_pipeline.evaluate import evaluate
from torch_pipeline.model import weights_of
from torch_pipeline.strategy import build_strategy, gather_over_workers
from torch_pipeline.train import train

found = {{}}
for case, overrides in json.loads({cases!r}).items():
    worker, recorder = Worker.from_environment(), Recorder(traced=True)
    config = load_config(Path({config!r}), overrides)
    workload = get_workload(config, Dataset.open(config.dataset_dir).manifest)
    strategy = build_strategy(config, worker)
    model = train(config, workload, strategy, worker, recorder, Unsaved())
    found[case] = {{
        "losses": gather_over_workers(strategy, np.array(recorder.losses)).mean(axis=0).tolist(),
        "gradient_norms": recorder.gradient_norms,
        "weight_norms": recorder.weight_norms,
        "evaluation": evaluate(config, workload, model),
        "weights": {{name: each.tolist() for name, each in weights_of(model).items()}},
    }}
print(json.dumps(found))
"""

# Unlike Adam, this sees the gradient's scale; the norm is clipped in about half of the steps.
OPTIMIZER = (
    "training.optimizer={name: momentum, learning_rate: 0.05, clip_norm: 2.0}",
    "training.schedule={name: constant}",
)
IN_PARTS = "training.gradient_accumulation=2"
CASES = {
    "ddp": (),
    "ddp in parts": (IN_PARTS, "torch.ddp.gradient_as_bucket_view=true", "torch.ddp.bucket_mb=1"),
    "ddp of a static graph": ("torch.ddp.static_graph=true",),
    "fsdp": (),
    "fsdp in parts": (IN_PARTS, "training.activation_checkpointing=true"),
    "fsdp hybrid": ("torch.fsdp.sharding=hybrid", "torch.fsdp.group_workers=1"),
    "fsdp compiled": ("training.compile=default",),
    "deepspeed_zero1": (),
    "deepspeed_zero2 in parts": (IN_PARTS,),
    "deepspeed_zero3": ("training.activation_checkpointing=true",),
    "deepspeed_zero3 in parts": (IN_PARTS,),
}
ROUGH = {
    "ddp in float16": ("torch.ddp.compression=float16",),
    "ddp in bfloat16": ("torch.ddp.compression=bfloat16",),
    "ddp of low rank": ("torch.ddp.compression=powersgd", "torch.ddp.powersgd_rank=4"),
}
MIXED = {name: ("training.precision=bfloat16",) for name in STRATEGIES["torch"] if name != "single"}


@pytest.fixture(scope="module", autouse=True)
def no_group_left_behind() -> Iterator[None]:
    # Not after every test: DeepSpeed keeps the first group that it finds.
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone(load_shrunk: Callable[..., Config], dataset: Dataset, workload: Vision) -> dict[str, Any]:
    """What one worker does with a global batch of 32."""
    config = load_shrunk(
        *OPTIMIZER,
        "training.batch_size_per_worker=32",
        "torch.strategy=single",
        "study.workers=[1]",
    )
    recorder = Recorder(traced=True)
    model = train(config, workload, build_strategy(config, Worker()), Worker(), recorder, Unsaved())
    return {
        "losses": recorder.losses,
        "gradient_norms": recorder.gradient_norms,
        "weight_norms": recorder.weight_norms,
        "evaluation": evaluate(config, workload, model),
        "weights": weights_of(model),
    }


@pytest.fixture(scope="module")
def together(
    config: Config,
    dataset: Dataset,
    run_workers: Callable[[str, int], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """What each of two workers finds that share it, in every case."""
    path = config.dump(tmp_path_factory.mktemp("together") / "config.yaml")
    cases = {
        **CASES,
        **ROUGH,
        **{f"{name} mixed": overrides for name, overrides in MIXED.items()},
    }
    asked = {
        case: [*OPTIMIZER, f"torch.strategy={case.split()[0]}", *overrides]
        for case, overrides in cases.items()
    }
    printed = run_workers(TRAIN.format(config=str(path), cases=json.dumps(asked)), 2)
    return [json.loads(output.splitlines()[-1]) for output in printed]


@pytest.mark.parametrize("name", STRATEGIES["torch"])
def test_every_strategy_of_a_single_process_gathers_from_one_worker(
    load_shrunk: Callable[..., Config], name: str
) -> None:
    config = load_shrunk(f"torch.strategy={name}", "study.workers=[1]")
    strategy = build_strategy(config, Worker())

    found = gather_over_workers(strategy, np.array([0.1, 2.0**53]))

    assert found.dtype == np.float64
    assert found.tolist() == [[0.1, 2.0**53]]
    fence(strategy)


def test_every_strategy_of_a_single_process_trains_one_worker_alike(
    load_shrunk: Callable[..., Config], workload: Vision, dataset: Dataset
) -> None:
    losses, before = {}, dict(os.environ)
    for name in STRATEGIES["torch"]:
        config, recorder = load_shrunk(f"torch.strategy={name}", "study.workers=[1]"), Recorder()
        train(config, workload, build_strategy(config, Worker()), Worker(), recorder, Unsaved())
        losses[name] = recorder.losses

    first, *others = losses.values()
    assert list(losses)[:3] == ["single", "ddp", "fsdp"]
    assert len(first) == config.training.steps
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)
    # Or the next strategy would take this worker for one of several.
    assert not {"MASTER_ADDR", "WORLD_SIZE", "RANK"} & (os.environ.keys() - before.keys())


def test_two_workers_gather_each_others_vectors_by_rank_to_the_last_bit(
    config: Config, run_workers: Callable[[str, int], list[str]], tmp_path: Path
) -> None:
    path = config.dump(tmp_path / "config.yaml")

    printed = run_workers(GATHER.format(config=str(path)), 2)

    expected = [
        ["float64", [[0.1, -(10.0**300), 2.0**53], [1.1, -(10.0**300), 2.0**53]]],
        ["float64", [[0.1], [1.1]]],
    ]
    assert [json.loads(output.splitlines()[-1]) for output in printed] == [expected] * 2


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_train_as_one_with_the_same_global_batch(
    alone: dict[str, Any], together: list[dict[str, Any]], case: str
) -> None:
    for worker in together:
        for series in ("losses", "gradient_norms", "weight_norms"):
            assert len(worker[case][series]) == 12
            np.testing.assert_allclose(worker[case][series], alone[series], rtol=5e-6)
        assert worker[case]["evaluation"] == pytest.approx(alone["evaluation"], rel=1e-5)
        assert set(worker[case]["weights"]) == set(alone["weights"])
        for name, weights in alone["weights"].items():
            np.testing.assert_allclose(worker[case]["weights"][name], weights, atol=1e-6)
    norms = np.array(alone["gradient_norms"])
    assert 2 < sum(norms > 2.0) < 10


@pytest.mark.parametrize("case", ROUGH)
def test_compressed_gradients_change_the_losses_little(
    alone: dict[str, Any], together: list[dict[str, Any]], case: str
) -> None:
    allowed = {"ddp in float16": 1e-4, "ddp in bfloat16": 1e-3, "ddp of low rank": 0.05}[case]
    found = np.array(together[0][case]["losses"])

    np.testing.assert_allclose(found, alone["losses"], rtol=allowed)
    assert np.abs(found / alone["losses"] - 1).max() > 1e-6
    assert together[1][case]["weights"] == together[0][case]["weights"]


@pytest.mark.parametrize("name", MIXED)
def test_mixed_precision_is_the_same_under_every_strategy(
    alone: dict[str, Any], together: list[dict[str, Any]], name: str
) -> None:
    found = together[0][f"{name} mixed"]

    losses = together[0]["ddp mixed"]["losses"]
    np.testing.assert_allclose(found["losses"][:8], losses[:8], rtol=1e-4)
    np.testing.assert_allclose(found["losses"], losses, rtol=2e-3)  # half a rounding of bfloat16
    assert 1e-5 < np.abs(np.array(found["losses"]) / alone["losses"] - 1).max() < 1e-2
    for name, weights in together[0]["ddp mixed"]["weights"].items():
        np.testing.assert_allclose(found["weights"][name], weights, atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "worker", "message"),
    [
        ((), Worker(replicas=2), "--replicas: PyTorch trains one replica per process, not 2"),
        (
            ("torch.strategy=single", "study.workers=[1]"),
            Worker(workers=2),
            "torch.strategy: single trains one worker, not 2",
        ),
        (
            ("torch.ddp.static_graph=true", IN_PARTS),
            Worker(),
            "torch.ddp.static_graph: PyTorch cannot combine it with gradient accumulation",
        ),
        (
            (
                "torch.strategy=fsdp",
                "torch.fsdp.sharding=hybrid",
                "torch.fsdp.group_workers=2",
            ),
            Worker(workers=3),
            "torch.fsdp.group_workers: groups of 2 do not divide 3 workers",
        ),
        pytest.param(
            ("torch.strategy=deepspeed_zero2", "training.precision=float64"),
            Worker(),
            "training.precision: float64 is not possible under deepspeed_zero2",
        ),
        pytest.param(
            ("torch.strategy=deepspeed_zero3", "torch.deepspeed.offload=cpu"),
            Worker(),
            "torch.deepspeed.offload: cpu moves what GPUs hold, and there is none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
    ],
)
def test_a_strategy_that_cannot_train_here_is_refused_in_one_line(
    load_shrunk: Callable[..., Config], overrides: tuple[str, ...], worker: Worker, message: str
) -> None:
    config = load_shrunk(*overrides)

    with pytest.raises(InputError) as refused:
        build_strategy(config, worker)

    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_the_software_is_described_by_version_and_class_of_build() -> None:
    build = "cpu" if not torch.cuda.is_available() else f"cuda{torch.version.cuda.split('.')[0]}"

    assert describe_software() == {
        "framework_version": f"torch {torch.__version__}",
        "software_build": build,
    }
