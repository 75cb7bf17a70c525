import json
from collections.abc import Callable

import pytest
import yaml

from pipelines.config import Config
from pipelines.errors import ComparisonRefusedError, InputError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.ingest import Dataset
from pipelines.parity.members import Member, abridged, check_workers, plan
from pipelines.parity.model import Parity
from pipelines.parity.probe import Probe
from pipelines.parity.prove import prove, require_passed

Load = Callable[..., Config]
SHORT = (
    "training.batch_size_per_worker=16",
    "parity.steps=20",
    "parity.workers=[1, 2]",
    "parity.floor_runs=1",
)


@pytest.fixture
def config(load_quickstart: Load) -> Config:
    return load_quickstart(*SHORT)


def run(config: Config, dataset: Dataset) -> Parity:
    return prove(config, dataset, {"workload": "vision/tiny"}, lambda *_: None)


def test_both_frameworks_run_at_every_worker_count_then_the_noise(load_quickstart: Load) -> None:
    names = [member.name for member in plan(load_quickstart())]

    assert names == [
        "tf x1", "torch x1", "tf x2", "torch x2", "tf x4", "torch x4",
        "torch x1, perturbed 1", "torch x1, perturbed 2", "torch x1, perturbed 3",
        "torch x1, permuted 1",
    ]  # fmt: skip
    assert len({member.slug for member in plan(load_quickstart())}) == len(names)


def test_every_member_knows_the_precision(load_quickstart: Load) -> None:
    members = plan(load_quickstart("training.precision=float64"))

    assert {member.probe.precision for member in members} == {"float64"}


def test_an_abridged_proof_covers_the_studys_workers_that_can_share_the_batch(
    load_quickstart: Load,
) -> None:
    short = abridged(load_quickstart("study.workers=[1, 2, 3]")).parity

    assert (short.workers, short.floor_runs, short.permuted_runs) == ([1, 2], 1, 0)
    assert short.steps == 50
    assert abridged(load_quickstart("parity.steps=7")).parity.steps == 7


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["parity.workers=[1, 3]"], "parity.workers: 3 workers cannot share a global batch of 16"),
        (
            ["training.gradient_accumulation=16"],
            "2 workers cannot share a global batch of 16 examples .* in 16 parts each",
        ),
        (
            ["study.workers=[1]", "torch.strategy=single"],
            r"parity.workers: 2 workers, but torch.strategy 'single' runs one; .*`--workers 1`",
        ),
    ],
)
def test_worker_counts_that_cannot_run_are_refused(
    load_quickstart: Load, overrides: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_workers(load_quickstart(*SHORT, *overrides))


def test_the_global_batch_is_the_same_at_every_worker_count(
    config: Config, digits: Dataset, frameworks: object
) -> None:
    run(config, digits)

    for member in plan(config):
        folder = config.output / "parity" / "runs" / member.slug
        written = yaml.safe_load((folder / "config.yaml").read_text())
        assert written["training"]["batch_size_per_worker"] * member.workers == 16
        assert written["training"]["steps"] == 20
        assert written["data"]["reader"] == "shared"
        assert written["study"]["threads_per_worker"] == 1
        assert Probe.load(folder / "probe.json") == member.probe
        assert len(list(folder.glob("rank*.log"))) == member.workers


def test_another_proof_in_the_same_folder_is_refused_before_it_touches_anything(
    config: Config, digits: Dataset, frameworks: object
) -> None:
    runs = config.output / "parity" / "runs"
    with held_alone(runs, "give up"):
        (runs / "torch-x1").mkdir()
        with pytest.raises(InputError, match=r"another process is working there; .*output"):
            run(config, digits)

        assert (runs / "torch-x1").exists()


def test_frameworks_that_agree_pass(config: Config, digits: Dataset, frameworks: object) -> None:
    parity = run(config, digits)

    assert parity.passed
    assert parity.summary == "all 4 pairs of runs agree over 20 steps and in their final weights"
    assert [(each.kind, each.title) for each in parity.comparisons] == [
        ("frameworks", "tf x1 and torch x1"),
        ("frameworks", "tf x2 and torch x2"),
        ("workers", "tf x2 and tf x1"),
        ("workers", "torch x2 and torch x1"),
        ("order", "torch x1, permuted 1 and torch x1"),
    ]
    assert parity.bounds[0].floor == pytest.approx([1e-7] * 20, rel=1e-3)
    require_passed(parity)


def test_a_framework_that_differs_is_named_with_step_quantity_and_values(
    config: Config, digits: Dataset, frameworks: Callable[..., None]
) -> None:
    frameworks(tf="loss[6:] *= 1.001")

    parity = run(config, digits)

    assert not parity.passed
    assert parity.summary.startswith("tf x1 and torch x1 differ in loss first at step 7: 2.0")
    assert parity.summary.endswith("(2 of 4 pairs differ)")
    with pytest.raises(ComparisonRefusedError, match=r"parity failed: .* step 7") as refusal:
        require_passed(parity)
    assert refusal.value.exit_code == 3
    assert set(refusal.value.differences) == {"tf x1 and torch x1", "tf x2 and torch x2"}


def test_a_fault_among_workers_alone_is_named(
    config: Config, digits: Dataset, frameworks: Callable[..., None]
) -> None:
    frameworks(torch="if os.environ['WORLD_SIZE'] == '2': loss[3:] *= 1.1")

    parity = run(config, digits)

    wrong = {each.title for each in parity.comparisons if each.divergence}
    assert wrong == {"tf x2 and torch x2", "torch x2 and torch x1"}


def test_a_permuted_run_decides_nothing(
    config: Config, digits: Dataset, frameworks: Callable[..., None]
) -> None:
    frameworks(torch="if probe['permutation'] is not None: loss *= 2")

    parity = run(config, digits)

    assert parity.passed
    assert parity.comparisons[-1].divergence is not None


def test_progress_goes_through_all_runs(
    config: Config, digits: Dataset, frameworks: object
) -> None:
    seen: list[tuple[str, int, int, int, int]] = []

    prove(config, digits, {}, lambda *said: seen.append(said))

    assert [name for name, *_ in seen[::2]] == [member.name for member in plan(config)]
    assert {members for _, _, members, _, _ in seen} == {6}
    assert seen[1][3:] == (20, 20)


def test_a_run_without_a_trace_is_a_failure(
    config: Config, digits: Dataset, frameworks: Callable[..., None]
) -> None:
    frameworks(torch="sys.exit(0)")

    with pytest.raises(WorkError, match="torch x1 ended without a trace"):
        run(config, digits)


def test_another_module_can_stand_in_for_a_framework(
    config: Config, digits: Dataset, frameworks: object
) -> None:
    from pathlib import Path

    program = Path("torch_pipeline/__main__.py").read_text()
    broken = program.replace("__package__", "'torch_pipeline'").replace("2.3 *", "2.4 *")
    Path("stand_in.py").write_text(broken)

    parity = prove(config, digits, {}, lambda *_: None, {"torch": "stand_in"})

    assert "in loss first at step 1" in parity.summary


def test_the_verdict_round_trips_even_where_a_run_broke_down(
    config: Config, digits: Dataset, frameworks: Callable[..., None]
) -> None:
    frameworks(tf="loss[5:] = np.nan")

    parity = run(config, digits)
    text = parity.model_dump_json()

    assert Parity.model_validate_json(text).model_dump_json() == text
    assert json.loads(text)["comparisons"][0]["divergence"]["step"] == 6
    assert Member("tf", 1, Probe()).name == json.loads(text)["curves"][0]["run"]
