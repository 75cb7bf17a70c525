import json
from dataclasses import replace

import pytest

from pipelines.errors import ComparisonRefusedError, InputError
from pipelines.predict import Prediction, parse_network, predict


def by_workers(forecast):
    return {point.workers: point for point in forecast.points}


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"hidden_seconds": 0.0},
        {"hidden_seconds": 0.0, "extra_seconds": 0.003},
        {"alpha": 0.0},
        {"beta": 2e-8, "hidden_seconds": 0.004},
    ],
)
@pytest.mark.parametrize("measured", [(1, 2), (1, 2, 3), (2, 4)])
def test_steps_that_were_not_measured_are_foretold(world, figures, measured):
    known = world(**figures).study(measured)
    prediction = predict(known.runs, [3, 6, 8])
    assert [forecast.framework for forecast in prediction.forecasts] == ["tf", "torch"]
    for forecast in prediction.forecasts:
        for point in forecast.points:
            if point.algorithm == "ring":
                step = known.step_seconds(point.workers)
                assert point.step_seconds == pytest.approx(step)
                assert point.examples_per_second == pytest.approx(64 * point.workers / step)
                base = 64 * measured[0] / known.step_seconds(measured[0])
                ideal = point.workers / measured[0] * base
                assert point.efficiency == pytest.approx(point.examples_per_second / ideal)
        assert by_workers(forecast)[3].algorithm == "ring"


def test_the_basis_holds_the_measured_figures(world):
    known = world().study()
    basis = predict(known.runs, [8]).forecasts[0].basis
    assert basis.latency_seconds == pytest.approx(known.alpha)
    assert basis.seconds_per_byte == pytest.approx(known.beta)
    assert basis.gradient_bytes == 4_000_000
    assert basis.lone_step_seconds == {64: pytest.approx(known.lone_seconds(64))}
    assert basis.hidden_share == pytest.approx(0.001 / known.lone_seconds(64), rel=0.01)
    assert basis.extra_seconds == 0
    assert basis.link_residual < 1e-9
    assert (basis.base_workers, basis.measured_workers) == (1, [2])


def test_all_that_was_hidden_counts_and_no_more(world):
    known = world(hidden_seconds=1.0).study()
    points = by_workers(predict(known.runs, [2, 3]).forecasts[0])
    assert points[2].communication_share == pytest.approx(0, abs=1e-9)
    reduced = {n: points[n].all_reduce_seconds["ring"] for n in (2, 3)}
    share = (reduced[3] - reduced[2]) / points[3].step_seconds
    assert points[3].communication_share == pytest.approx(share)


def test_both_algorithms_are_shown_and_the_faster_one_counts(world):
    known = world(beta=1e-12, hidden_seconds=0.0).study()
    points = by_workers(predict(known.runs, [2, 1024]).forecasts[0])
    assert points[2].algorithm == "ring"
    assert points[1024].algorithm == "tree"
    tree, ring = (points[1024].all_reduce_seconds[name] for name in ("tree", "ring"))
    assert tree == pytest.approx(20 * 50e-6 + 8e-6)
    assert ring == pytest.approx(2046 * 50e-6 + 2046 / 1024 * 4e-6)
    assert points[1024].step_seconds == pytest.approx(known.lone_seconds(64) + tree)


def test_a_slower_wire_counts_and_a_faster_one_does_not(world):
    known = world(hidden_seconds=0.0).study()

    def ring(network):
        forecast = predict(known.runs, [8], network).forecasts[0]
        return forecast.points[0].all_reduce_seconds["ring"]

    assert ring(parse_network("1gbit")) == pytest.approx(14 * 50e-6 + 14 / 8 * 4e6 * 8e-9)
    assert ring(parse_network("1gbit,1ms")) == pytest.approx(14 * 1.05e-3 + 14 / 8 * 4e6 * 8e-9)
    assert ring(parse_network("100gbit")) == pytest.approx(ring(None))


def test_a_wire_that_changes_nothing_is_told_of(world):
    known = world().study()
    told = predict(known.runs, [8], parse_network("100gbit")).notes
    assert sum("12.5 times as much in software" in note for note in told) == 2
    told = predict(known.runs, [8], parse_network("1gbit")).notes
    assert not any("in software" in note for note in told)


def test_intervals_hold_the_prediction_and_grow_with_the_spread(world):
    def width(spread):
        forecast = predict(world(spread=spread).study().runs, [8, 64]).forecasts[0]
        for point in forecast.points:
            low, high = point.step_seconds_interval95
            assert low <= point.step_seconds <= high
            low, high = point.efficiency_interval95
            assert low <= point.efficiency <= high
            fastest, slowest = point.examples_per_second_interval95
            assert fastest <= point.examples_per_second <= slowest
        return high - low

    assert width((1.0, 1.0, 1.0)) == pytest.approx(0, abs=1e-9)
    assert 0 < width((0.99, 1.0, 1.02)) < width((0.9, 1.0, 1.2))


def test_all_reduces_that_do_not_fit_widen_the_interval(world):
    known = world(spread=(1, 1, 1), hidden_seconds=0.0, alpha=1e-3).study()
    for run in [run for run in known.runs if run.kind == "anatomy" and "x2" in run.name]:
        took = json.loads(run.tags["tandem.all_reduce"])
        bent = {size: s * (1.3 if i % 2 else 0.7) for i, (size, s) in enumerate(took.items())}
        run.tags["tandem.all_reduce"] = json.dumps(bent)
    forecast = predict(known.runs, [32]).forecasts[0]
    low, high = forecast.points[0].step_seconds_interval95
    assert high - low > 0.2 * forecast.points[0].step_seconds
    assert forecast.basis.link_residual > 0.2


def test_one_repeat_has_no_interval_and_says_so(world):
    prediction = predict(world().study().runs, [8])
    assert prediction.forecasts[0].points[0].step_seconds_interval95 is None
    assert any("1 repeat has no spread" in note for note in prediction.notes)


def test_the_same_runs_always_give_the_same_prediction(world):
    runs = world(spread=(0.9, 1.0, 1.2)).study().runs
    assert predict(runs, [8, 4]) == predict(list(reversed(runs)), [4, 8])


def test_strong_scaling_shares_one_batch_and_follows_the_measured_line(world):
    known = world(hidden_seconds=0.0).study((1, 2, 4), scaling="strong")
    points = by_workers(predict(known.runs, [8, 64, 128]).forecasts[0])
    assert set(points) == {8, 64}
    for workers, point in points.items():
        assert point.global_batch_size == 64
        exposed = min(point.all_reduce_seconds.values())
        assert point.step_seconds - exposed == pytest.approx(known.lone_seconds(64 / workers))


def test_strong_scaling_from_one_batch_size_is_linear_and_says_so(world):
    known = world(hidden_seconds=0.0).study((2,), scaling="strong")
    prediction = predict(known.runs, [16])
    point = prediction.forecasts[0].points[0]
    exposed = min(point.all_reduce_seconds.values())
    assert point.step_seconds - exposed == pytest.approx(known.lone_seconds(32) / 8)
    assert any("in proportion" in note for note in prediction.notes)


def test_a_missing_anatomy_is_answered_with_the_command_that_makes_it(world):
    known = world()
    for framework in ("tf", "torch"):
        known.cells(framework, 1)
        known.cells(framework, 2)
    known.anatomy("tf", 2)
    known.anatomy("torch", 1)
    known.prove()
    with pytest.raises(InputError, match=r"no anatomy of PyTorch ddp, .*`tandem study`"):
        predict(known.runs, [8])


def test_a_failed_anatomy_counts_for_nothing(world):
    known = world().study()
    runs = [replace(r, status="FAILED") if r.kind == "anatomy" else r for r in known.runs]
    with pytest.raises(InputError, match="no anatomy"):
        predict(runs, [8])


def test_a_study_without_cells_is_answered_with_the_command_that_measures_some(world):
    known = world()
    known.add("pipeline", "tf", 1, "weak", {"pipeline_seconds": 3.0})
    with pytest.raises(InputError, match="no finished cell"):
        predict(known.runs, [8])


@pytest.mark.parametrize("kind", ["cell", "anatomy"])
def test_runs_that_did_not_do_the_same_work_are_refused_by_field(world, kind):
    known = world().study()
    *_, last = (run for run in known.runs if run.kind == kind)
    last.params["hardware"] = "another machine"
    with pytest.raises(ComparisonRefusedError) as refused:
        predict(known.runs, [8])
    assert set(refused.value.differences) == {"hardware"}


def test_unproven_parity_is_refused(world):
    runs = [run for run in world().study().runs if run.kind != "parity"]
    with pytest.raises(ComparisonRefusedError):
        predict(runs, [8])


def test_another_network_than_an_emulated_one_is_refused(world):
    emulated = {"network": "emulated: 2 hosts, 100mbit"}
    runs = world(params=emulated).study().runs
    assert predict(runs, [4]).network == "as measured"
    with pytest.raises(InputError, match=r"^--network 1gbit: .*2 hosts, 100mbit"):
        predict(runs, [4], parse_network("1gbit"))


def test_gradients_of_float64_are_twice_as_large(world):
    prediction = predict(world(params={"precision": "float64"}).study().runs, [8])
    assert prediction.forecasts[0].basis.gradient_bytes == 8_000_000


def test_compressed_gradients_are_told_of(world):
    options = {"strategy_options": '{"compression": "float16"}'}
    told = " ".join(predict(world(params=options).study().runs, [8]).notes)
    assert "compresses its gradients" in told
    assert "compresses its gradients" not in " ".join(predict(world().study().runs, [8]).notes)


def test_strategies_without_an_all_reduce_are_left_out_by_name(world):
    known = world().study()
    for run in known.runs:
        if run.params.get("framework") == "tf":
            run.params["strategy"] = "mirrored"
    known.prove()
    prediction = predict(known.runs, [8])
    assert [forecast.strategy for forecast in prediction.forecasts] == ["ddp"]
    assert any(note.startswith("mirrored is left out") for note in prediction.notes)
    for run in known.runs:
        run.params["strategy"] = "mirrored"
    with pytest.raises(InputError, match=r"no strategy .*torch\.strategy=ddp"):
        predict([run for run in known.runs if run.params.get("framework") == "tf"], [8])


def test_a_prediction_can_be_read_back_from_json(world):
    prediction = predict(world(spread=(0.9, 1.0)).study().runs, [8])
    assert Prediction.model_validate_json(prediction.model_dump_json()) == prediction
