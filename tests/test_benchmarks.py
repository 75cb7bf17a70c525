import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import measuring, method, series
from benchmarks.error_rates import (
    VERDICTS,
    Rate,
    cut,
    rates,
    repeats_calculated,
    repeats_to_find,
    spread,
    windows,
)
from benchmarks.harness import Contestant, Runs, run, run_rounds
from benchmarks.report import ratio_of
from benchmarks.series import Pair, Series
from benchmarks.slowed import SlowedClock
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.recorder import Recorder

SIZES: dict[str, dict[str, Any]] = {
    "ingest_csv": {"rows": 4_000, "tfx_rows": 1_000, "repeats": 1},
    "ingest_memory": {"rows": 4_000, "fewer_rows": 2_000, "repeats": 2},
    "reader": {"rows": 4_000, "rival_rows": 3_000, "repeats": 2, "rival_repeats": 1},
}
ASKED = {
    "ingest_csv": ["at least 0.8", "at least 10"],
    "ingest_memory": ["at most 1.2", ""],
    "reader": ["at least 0.8", "", ""] * 2 + ["at least 1"] * 6,
}


@pytest.mark.bench
@pytest.mark.parametrize("name", SIZES)
def test_benchmark_writes_ratios_with_hardware_and_versions(name: str, tmp_path: Path) -> None:
    output = tmp_path / "results" / "result.json"

    importlib.import_module(f"benchmarks.{name}").main(
        **SIZES[name], output=output, scratch=tmp_path / "scratch"
    )

    record = json.loads(output.read_text())
    assert record["benchmark"] == name
    assert "cores" in record["hardware"]
    assert record["commit"]
    assert record["settings"].items() >= SIZES[name].items()
    assert [ratio["asked"] for ratio in record["ratios"]] == ASKED[name]
    for ratio in record["ratios"]:
        assert 0 < ratio["least"] <= ratio["value"] <= ratio["greatest"]
        assert (ratio["met"] is None) == (not ratio["asked"])
    for contestant in record["contestants"].values():
        assert len(contestant["versions"]) >= 2
        assert all(measures["rows"] > 0 for measures in contestant["rounds"])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_ratio_is_the_median_over_the_rounds_that_both_took_part_in() -> None:
    results = {
        "ours": Runs([{"speed": 8.0}, {"speed": 2.0}, {"speed": 6.0}], {}),
        "theirs": Runs([{"speed": 2.0}, {"speed": 1.0}], {}),
    }
    ratio = ratio_of(results, "ours", "theirs", measure="speed", at_least=3.1)
    assert ratio.values == [4.0, 2.0]
    assert (ratio.value, ratio.met, ratio.asked) == (3.0, False, "at least 3.1")
    assert ratio_of(results, "ours", "theirs", measure="speed", at_most=3).met is True


def test_rounds_interleave_the_contestants(tmp_path: Path) -> None:
    options = {"csv": str(tmp_path / "rows.csv"), "folder": "", "block_bytes": None}
    (tmp_path / "rows.csv").write_text("a\n1\n")
    contestants = [
        Contestant(
            name,
            "benchmarks.rivals.arrow_csv",
            "convert",
            options | {"folder": str(tmp_path / name)},
            prepare=lambda name=name: (
                (tmp_path / name).exists()
                and (tmp_path / name).rename(tmp_path / f"{name}, before")
            ),
            repeats=repeats,
        )
        for name, repeats in (("A", None), ("B", 1))
    ]
    said: list[str] = []
    results = run_rounds(contestants, 2, said.append)
    assert said == ["round 1 of 2: A", "round 1 of 2: B", "round 2 of 2: A"]
    assert results["A"].values("rows") == [1, 1]
    assert results["B"].values("rows") == [1]


def test_failing_contestant_says_what_it_printed(tmp_path: Path) -> None:
    options = {"csv": "missing.csv", "folder": str(tmp_path / "out"), "block_bytes": None}
    contestant = Contestant("Arrow", "benchmarks.rivals.arrow_csv", "convert", options)
    with pytest.raises(WorkError, match=r"Arrow: ended with 1:\n(?s:.*)missing\.csv"):
        run(contestant)


@pytest.mark.bench
def test_series_runs_both_comparisons_and_goes_on_where_it_was(
    load_quickstart: Callable[..., Config],
) -> None:
    config, said = load_quickstart("study.workers=[1]"), []

    Series(config, "torch").measure({"equal": 1, "slowed": 1}, said.append)
    again = Series(config, "torch")
    again.measure({"equal": 1, "slowed": 1}, said.append)

    assert said == ["torch: pair 1 of 1, equal", "torch: pair 1 of 1, slowed"]
    done = [(run.comparison, run.side) for run in again.runs]
    assert done == [("equal", "a"), ("equal", "b"), ("slowed", "b"), ("slowed", "a")]
    assert all(run.examples_per_second > 0 for run in again.runs)


@pytest.mark.bench
@pytest.mark.both_frameworks
def test_measuring_is_told_end_to_end_and_by_its_parts(tmp_path: Path) -> None:
    output = tmp_path / "measuring.json"

    measuring.main(pairs=3, block=4, output=output, scratch=tmp_path / "scratch")

    record = json.loads(output.read_text())
    assert set(record["frameworks"]) == {"tf", "torch"}
    for found in record["frameworks"].values():
        measured = [on for on, *_ in found["blocks"]]
        assert measured == [True, False, False, True, True, False]
        assert all(min(wall, spent) > 0 for _, wall, spent in found["blocks"])
        assert found["directly"] == sum(found["parts"].values())
        low, high = found["end_to_end"]["interval95"]
        assert low <= found["end_to_end"]["mean"] <= high


def test_recording_takes_time_and_more_where_something_is_told() -> None:
    per_step, per_event = measuring.recording_seconds()

    assert 0 < per_step < per_event


@pytest.mark.both_frameworks
def test_method_answers_what_is_asked_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)

    def train(framework: str, arguments: Sequence[str], **options: Any) -> float:
        """A run of a machine whose throughput scatters by 0.5 %."""
        output = Path(arguments[arguments.index("--output") + 1])
        output.mkdir()
        slow = float(arguments[1]) if options.get("module") == "benchmarks.slowed" else 0.0
        metrics = {"examples_per_second": random.lognormal(7, 0.005) / (1 + slow)}
        (output / "result.json").write_text(json.dumps({"metrics": metrics}))
        return 1.0

    monkeypatch.setattr(series, "launch", train)
    output = tmp_path / "method.json"
    method.main(only="torch", equal=6, slowed=6, runs=tmp_path / "runs", output=output)

    record = json.loads(output.read_text())
    found = record["frameworks"]["torch"]
    verdict = found["verdicts"]["independent"]
    assert len(found["runs"]) == 24
    assert found["spread"]["slowed"]["ratio"] == pytest.approx(1 / 1.05, rel=0.01)
    assert verdict["answers"] == {
        "false_at_most_5_percent": True,
        "slow_side_found_in_9_of_10": True,
    }
    assert verdict["repeats_to_find"]["found"] == 3
    counted = [rate for rate in verdict["rates"] if rate["kind"] == "found"]
    assert [(rate["repeats"], rate["studies"]) for rate in counted] == [(3, 2), (5, 1)]
    with pytest.raises(InputError, match="runs of another configuration; give another folder"):
        method.main(only="torch", equal=6, slowed=6, steps=100, runs=tmp_path / "runs")


def test_method_without_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--runs: torch has 0 equal .* run without --no-measure"):
        method.main(only="torch", runs=tmp_path, measure=False)


def test_slowed_steps_take_5_percent_longer_whoever_takes_the_core_away() -> None:
    class Slowed(SlowedClock):
        share = 0.05

    random, recorder, now, own_seconds = np.random.default_rng(0), Recorder(), 0.0, 0.0

    def perf_counter() -> float:
        """A look at the clock takes a microsecond, and once in a thousand looks 5 ms more."""
        nonlocal now
        now += 1e-6 + 5e-3 * (random.random() < 1e-3)
        return now

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", perf_counter)
        clock = Slowed(recorder, steps=301, warmup_steps=1, global_batch_size=1, fence=lambda: None)
        clock.start()
        clock.step_done()
        for _ in range(300):
            step_seconds = random.uniform(0.005, 0.02)
            own_seconds += step_seconds
            now += step_seconds
            clock.step_done()

    assert recorder.metrics["train_seconds"] / own_seconds == pytest.approx(1.05, abs=0.005)


@pytest.mark.parametrize(
    ("scatter", "slower", "repeats"),
    [(0.005, 0.05, 3), (0.02, 0.05, 5), (0.05, 0.05, 24), (0.05, 0.10, 7), (0.1, 0.1, 25)],
)
def test_the_calculated_repeats_find_what_they_should(
    scatter: float, slower: float, repeats: int
) -> None:
    assert repeats_calculated(scatter, slower) == repeats

    random = np.random.default_rng(0)
    logs = random.normal(0, scatter, (2000, 2, repeats)) - np.log([1, 1 + slower])[:, None]
    found = stats.ttest_ind(logs[:, 0], logs[:, 1], axis=1)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) > 0.88


def test_studies_are_cut_from_consecutive_pairs() -> None:
    pairs = [(float(number), 1.0) for number in range(7)]

    assert [[int(one) for one, _ in study] for study in cut(pairs, 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [int(study[0][0]) for study in windows(pairs, 5)] == [0, 1, 2]


@pytest.fixture(scope="module")
def equal() -> list[Pair]:
    """Of a machine whose runs scatter by 1 %, around a speed that drifts by ten times that."""
    random = np.random.default_rng(0)
    drift = np.exp(0.1 * np.sin(np.arange(30) / 3))[:, None]
    return [tuple(pair) for pair in drift * random.lognormal(7, 0.01, (30, 2))]


@pytest.mark.parametrize("name", VERDICTS)
def test_both_verdicts_hold_their_level(name: str, equal: list[Pair]) -> None:
    found = rates(VERDICTS[name], equal, equal, [3])

    false = {rate.kind: rate for rate in found if rate.kind.startswith("false")}
    assert false["false"].studies == 10
    assert false["false"].interval95 is not None
    assert false["false"].interval95[0] <= 0.05
    assert false["false, overlapping"].studies == 4 * 28
    assert false["false, overlapping"].interval95 is None
    # Equal sides, taken for slowed ones, are not found.
    assert repeats_to_find(found, "found") is None


def test_pairs_find_through_a_drift_what_independent_samples_do_not(equal: list[Pair]) -> None:
    slow = [(one, other / 1.05) for one, other in equal]

    enough = {
        name: repeats_to_find(rates(verdict, equal, slow, [5]), "found")
        for name, verdict in VERDICTS.items()
    }

    assert enough == {"independent": None, "paired": 5}
    assert spread(equal)["correlation_in_pairs"] > 0.9
    assert spread(slow)["ratio"] == pytest.approx(1 / 1.05, rel=0.05)


def test_enough_repeats_are_those_from_which_on_nine_of_ten_studies_find_it() -> None:
    called = {3: 10, 5: 8, 7: 9, 10: 10}

    found = [Rate("found", repeats, count, 10) for repeats, count in called.items()]

    assert repeats_to_find(found, "found") == 7
    assert found[0].interval95 == pytest.approx((0.692, 1.0), abs=0.001)
    assert repeats_to_find(found[:2], "found") is None
