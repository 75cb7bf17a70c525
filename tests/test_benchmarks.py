import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Contestant, Runs, run, run_rounds
from benchmarks.report import ratio_of
from pipelines.errors import WorkError

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
