import itertools
import subprocess
import sys
import time

import pytest

from pipelines import events
from pipelines.metrics import PHASES
from pipelines.recorder import Recorder, StepClock


def clock_of(
    recorder: Recorder, steps: int, warmup_steps: int, log: list[str], done: int = 0
) -> StepClock:
    return StepClock(
        recorder,
        steps=steps,
        warmup_steps=warmup_steps,
        global_batch_size=32,
        fence=lambda: log.append("fence"),
        done=done,
    )


def test_a_phase_is_timed_under_its_name_and_announced(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()

    with recorder.phase("build_seconds"):
        time.sleep(0.01)

    assert list(recorder.metrics) == ["build_seconds"]
    assert recorder.metrics["build_seconds"] >= 0.01
    told = events.parse(capsys.readouterr().out)
    assert told == {"event": "phase", "name": "build_seconds", "spent": {}}


def test_a_phase_entered_twice_adds_up() -> None:
    recorder = Recorder()
    with recorder.phase("build_seconds"):
        time.sleep(0.01)
    once = recorder.metrics["build_seconds"]

    with recorder.phase("build_seconds"):
        time.sleep(0.01)

    assert recorder.metrics["build_seconds"] >= once + 0.01


def test_a_phase_that_fails_is_timed_and_fails() -> None:
    recorder = Recorder()

    with pytest.raises(RuntimeError, match="broken"), recorder.phase("build_seconds"):
        raise RuntimeError("broken")

    assert recorder.metrics["build_seconds"] > 0


def test_a_phase_within_another_takes_its_time_from_it() -> None:
    recorder = Recorder()

    began = time.perf_counter()
    with recorder.phase("build_seconds"):
        time.sleep(0.01)
        with recorder.phase("restore_seconds"):
            time.sleep(0.05)
        time.sleep(0.01)
    elapsed = time.perf_counter() - began

    build, restore = recorder.metrics["build_seconds"], recorder.metrics["restore_seconds"]
    assert restore >= 0.05
    assert 0.02 <= build <= elapsed - restore


def test_values_are_added_up_under_names_of_the_table() -> None:
    recorder = Recorder()

    recorder.add("data_wait_seconds", 1.5)
    recorder.add("data_wait_seconds", 2.0)

    assert recorder.metrics == {"data_wait_seconds": 3.5}


def test_a_name_that_the_table_does_not_know_is_refused() -> None:
    recorder = Recorder()

    with pytest.raises(KeyError, match="luck is not in the metrics table"):
        recorder.add("luck", 1.0)
    assert recorder.metrics == {}


def test_finishing_adds_what_the_process_has_used() -> None:
    recorder = Recorder()
    recorder.add("eval_accuracy", 0.5)

    metrics = recorder.finish()

    assert set(metrics) == {"eval_accuracy", "peak_memory_bytes", "cpu_seconds"}
    assert 2**20 < metrics["peak_memory_bytes"] < 2**40  # bytes, neither KiB nor pages
    assert metrics["cpu_seconds"] > 0


def test_processor_time_is_also_that_of_processes_which_it_started() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\n"
    lives = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {busy!r}])\n"
        f"{busy}print(flush=True); sys.stdin.read()"
    )
    before = Recorder().finish()["cpu_seconds"]

    subprocess.run([sys.executable, "-c", busy], check=True)
    with subprocess.Popen(
        [sys.executable, "-c", lives], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as compiler:
        assert compiler.stdout is not None
        compiler.stdout.readline()
        after = Recorder().finish()["cpu_seconds"]

    assert after - before > 0.5  # three times 0.2, known to a tick or two each


def test_a_process_is_as_old_as_the_kernel_says() -> None:
    program = "from pipelines.recorder import process_age; print(process_age())"

    began = time.perf_counter()
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    elapsed = time.perf_counter() - began

    assert 0 < float(told.stdout) <= elapsed + 0.01  # a tick


def test_what_a_worker_has_spent_is_told_by_cause_whatever_phase_it_is_in() -> None:
    recorder = Recorder()
    recorder.add("import_seconds", 4.0)
    with recorder.phase("tracking_seconds"):
        time.sleep(0.02)

    with recorder.phase("rendezvous_seconds"):
        recorder.set_aside("barrier", 0.01)
        with recorder.waiting_for_others():
            time.sleep(0.02)
        spent = recorder.spent()

    assert spent["tracking"] == pytest.approx(recorder.metrics["tracking_seconds"], abs=1e-6)
    assert 0.03 <= spent["barrier"] <= 0.01 + recorder.metrics["rendezvous_seconds"]
    found = recorder.metrics["rendezvous_seconds"]
    assert spent["initialisation"] <= 4 + found - spent["barrier"] + 1e-6
    assert set(spent) == {"initialisation", "tracking", "barrier"}


def test_a_loops_steps_waits_and_tracing_are_told_apart() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=8, warmup_steps=4, log=[])

    def batches():
        for number in itertools.count():
            time.sleep(0.2 if number == 0 else 0.01)
            yield number

    before = time.perf_counter()
    clock.start()
    started = time.perf_counter()
    for number in clock.waiting(batches()):
        time.sleep(0.2 if number == 0 else 0.02)
        clock.step_done()
        if number == 5:
            with clock.paused("checkpoint_seconds"):
                time.sleep(0.03)
        if number == 7:
            break
    ending = time.perf_counter()
    spent = recorder.spent()
    after = time.perf_counter()

    rounding = 1e-5
    assert ending - started - rounding <= sum(spent.values()) <= after - before + rounding
    assert spent["data_wait"] >= 0.07  # of all steps but the first
    assert spent["checkpoint_save"] >= 0.03
    steps = [recorder.metrics[f"{name}_seconds"] for name in ("first_step", "warmup", "train")]
    usual = recorder.metrics["step_seconds"]
    assert spent["initialisation"] == pytest.approx(steps[0] - usual, abs=1e-3)
    assert spent["step"] == pytest.approx(
        usual + steps[1] + steps[2] - spent["data_wait"], abs=1e-3
    )
    assert recorder.metrics["data_wait_seconds"] <= spent["data_wait"] - 0.03


@pytest.mark.parametrize(("done", "counted"), [(6, True), (8, False)])
def test_without_timed_steps_the_others_tell_what_a_step_usually_takes(
    done: int, counted: bool
) -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=9, warmup_steps=3, log=[], done=done)

    clock.start()
    time.sleep(0.05)
    for _ in range(done, 9):
        time.sleep(0.01)
        clock.step_done()
    spent = recorder.spent()

    first = recorder.metrics["first_step_seconds"]
    usual = recorder.metrics["warmup_seconds"] / 2 if counted else 0  # of a single step: unknown
    assert spent["initialisation"] == pytest.approx(first - usual, abs=1e-3)
    assert spent.get("step", 0) == pytest.approx(3 * usual, abs=1e-3)


def test_the_way_to_the_first_step_is_counted_from_the_birth_of_the_process() -> None:
    born = time.perf_counter() - 7
    recorder = Recorder(born=born)
    clock = clock_of(recorder, steps=3, warmup_steps=1, log=[])

    clock.start()
    time.sleep(0.01)
    clock.step_done()
    until_then = time.perf_counter() - born
    for _ in range(2):
        time.sleep(0.01)
        clock.step_done()

    assert 7.01 <= recorder.metrics["time_to_first_step_seconds"] <= until_then


def test_the_hosts_counters_are_read_around_the_timed_steps_alone() -> None:
    class Meter:
        def begin(self) -> None:
            log.append("begin")

        def keep_up(self) -> None:
            pass

        def end(self) -> dict[str, float]:
            log.append("end")
            return {"network_bytes": 12.0}

    log: list[str] = []
    recorder = Recorder(meter=Meter())
    clock = clock_of(recorder, steps=4, warmup_steps=2, log=log)

    clock.start()
    for step in range(1, 5):
        log.append(f"step {step}")
        clock.step_done()

    assert [each for each in log if each != "fence"] == [
        "step 1", "step 2", "begin", "step 3", "step 4", "end",
    ]  # fmt: skip
    assert recorder.metrics["network_bytes"] == 12


def test_the_device_is_fenced_where_a_phase_ends_and_nowhere_else() -> None:
    log: list[str] = []
    clock = clock_of(Recorder(), steps=6, warmup_steps=3, log=log)

    clock.start()
    for step in range(6):
        clock.step_done()
        log.append(f"step {step + 1}")

    assert log == [
        "fence", "step 1", "step 2", "fence", "step 3", "step 4", "step 5", "fence", "step 6",
    ]  # fmt: skip


def test_steps_fall_into_first_warm_up_and_timed() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=5, warmup_steps=3, log=[])
    pauses = [0.05, 0.01, 0.01, 0.03, 0.03]

    clock.start()
    for pause in pauses:
        time.sleep(pause)
        clock.step_done()

    metrics = recorder.metrics
    assert metrics["first_step_seconds"] >= 0.05
    assert metrics["warmup_seconds"] >= 0.02
    assert metrics["train_seconds"] >= 0.06
    assert metrics["step_seconds"] == metrics["train_seconds"] / 2
    assert metrics["examples_per_second"] == pytest.approx(2 * 32 / metrics["train_seconds"])


def test_the_three_phases_of_the_loop_leave_no_gap_between_them() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=4, warmup_steps=2, log=[])

    before = time.perf_counter()
    clock.start()
    started = time.perf_counter()
    for _ in range(4):
        time.sleep(0.005)
        ending = time.perf_counter()
        clock.step_done()
    after = time.perf_counter()

    claimed = sum(recorder.metrics[name] for name in PHASES if name in recorder.metrics)
    assert ending - started <= claimed <= after - before


def test_a_warm_up_of_one_step_is_all_first_step() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=3, warmup_steps=1, log=[])

    clock.start()
    time.sleep(0.01)
    for _ in range(3):
        clock.step_done()

    assert recorder.metrics["first_step_seconds"] >= 0.01
    assert recorder.metrics["warmup_seconds"] < recorder.metrics["first_step_seconds"]
    assert recorder.metrics["step_seconds"] == recorder.metrics["train_seconds"] / 2


def test_several_steps_done_at_once_count_as_so_many() -> None:
    recorder, log = Recorder(), []
    clock = clock_of(recorder, steps=9, warmup_steps=4, log=log)
    issued = []

    clock.start()
    while sum(issued) < 9:
        issued.append(min(3, clock.steps_to_boundary))
        time.sleep(0.01 * issued[-1])
        clock.step_done(issued[-1])

    assert issued == [1, 3, 3, 2]
    assert log == ["fence"] * 3
    assert recorder.metrics["warmup_seconds"] >= 0.03
    assert recorder.metrics["step_seconds"] == recorder.metrics["train_seconds"] / 5


def test_steps_that_would_cross_a_phases_end_are_refused() -> None:
    clock = clock_of(Recorder(), steps=9, warmup_steps=4, log=[])
    clock.start()
    clock.step_done()

    with pytest.raises(ValueError, match="4 steps at once, 3 before a phase ends"):
        clock.step_done(4)


def test_a_wait_for_data_that_nobody_measured_is_not_recorded() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=3, warmup_steps=1, log=[])

    clock.start()
    for count in (1, 2):
        clock.step_done(count)

    assert "train_seconds" in recorder.metrics
    assert "data_wait_seconds" not in recorder.metrics


def test_only_timed_steps_count_towards_waiting_for_data() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=5, warmup_steps=3, log=[])
    pauses = [0.1, 0.1, 0.1, 0.02, 0.02]
    seen = []

    def slow_batches():
        for number in itertools.count():
            time.sleep(pauses[number])
            yield number

    clock.start()
    for batch in clock.waiting(slow_batches()):
        seen.append(batch)
        time.sleep(0.01)
        clock.step_done()
        if len(seen) == 5:
            break

    assert seen == [0, 1, 2, 3, 4]
    assert recorder.metrics["data_wait_seconds"] >= 0.04
    assert recorder.metrics["data_wait_seconds"] <= recorder.metrics["train_seconds"] - 0.02


def test_batches_that_end_simply_end() -> None:
    clock = clock_of(Recorder(), steps=5, warmup_steps=1, log=[])

    clock.start()

    assert list(clock.waiting(iter([1, 2, 3]))) == [1, 2, 3]


def test_progress_is_told_now_and_then_not_at_every_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.recorder._SECONDS_BETWEEN_EVENTS", 0.05)
    clock = clock_of(Recorder(), steps=100, warmup_steps=1, log=[])

    started = time.perf_counter()
    clock.start()
    clock.step_done()
    clock.step_done()
    time.sleep(0.06)
    clock.step_done()
    clock.step_done()
    elapsed = time.perf_counter() - started

    first, *told = [events.parse(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["event"], first["step"], first["steps"]) == ("step", 1, 100)
    assert 3 in [event["step"] for event in told]
    assert len(told) <= elapsed / 0.05


def test_the_first_step_is_told_at_once_also_of_a_run_that_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = clock_of(Recorder(), steps=100, warmup_steps=5, log=[], done=40)

    clock.start()
    clock.step_done()
    clock.step_done()

    [told] = [events.parse(line) for line in capsys.readouterr().out.splitlines()]
    assert (told["step"], told["steps"]) == (41, 100)


def test_the_phases_of_a_run_that_goes_on_are_those_of_the_steps_that_are_left() -> None:
    recorder, log = Recorder(), []
    clock = clock_of(recorder, steps=9, warmup_steps=3, log=log, done=4)
    boundaries = []

    clock.start()
    for step in range(5, 10):
        boundaries.append(clock.steps_to_boundary)
        time.sleep(0.01)
        clock.step_done()
        log.append(f"step {step}")

    assert boundaries == [1, 2, 1, 2, 1]
    assert log == ["fence", "step 5", "step 6", "fence", "step 7", "step 8", "fence", "step 9"]
    metrics = recorder.metrics
    assert metrics["train_seconds"] >= 0.02
    assert metrics["step_seconds"] == metrics["train_seconds"] / 2
    assert metrics["examples_per_second"] == pytest.approx(2 * 32 / metrics["train_seconds"])


@pytest.mark.parametrize("done", [6, 7, 8])
def test_a_run_that_goes_on_for_no_more_than_its_warm_up_has_no_timed_steps(done: int) -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=9, warmup_steps=3, log=[], done=done)

    clock.start()
    for _ in range(done, 9):
        clock.step_done()

    assert list(recorder.metrics) == ["first_step_seconds", "warmup_seconds"]


def test_a_pause_between_steps_is_a_phase_of_its_own_and_no_steps_time() -> None:
    recorder, log = Recorder(), []
    clock = clock_of(recorder, steps=5, warmup_steps=2, log=log)

    began = time.perf_counter()
    clock.start()
    for step in range(1, 6):
        clock.step_done()
        if step in (1, 3):
            log.append("pause")
            with clock.paused("checkpoint_seconds"):
                time.sleep(0.05)
    elapsed = time.perf_counter() - began

    metrics = recorder.metrics
    assert log == ["fence", "pause", "fence", "fence", "pause", "fence", "fence"]
    assert metrics["checkpoint_seconds"] >= 0.1
    steps = metrics["first_step_seconds"] + metrics["warmup_seconds"] + metrics["train_seconds"]
    assert 0 < steps <= elapsed - metrics["checkpoint_seconds"]
    assert metrics["step_seconds"] == metrics["train_seconds"] / 3


def test_a_pause_is_no_wait_for_data() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=3, warmup_steps=1, log=[])

    clock.start()
    for _, _ in zip(range(3), clock.waiting(itertools.count()), strict=False):
        clock.step_done()
        with clock.paused("checkpoint_seconds"):
            time.sleep(0.05)

    assert recorder.metrics["checkpoint_seconds"] >= 0.15
    assert recorder.metrics["data_wait_seconds"] <= recorder.metrics["train_seconds"]


def test_a_pause_that_fails_is_timed_and_fails() -> None:
    recorder = Recorder()
    clock = clock_of(recorder, steps=3, warmup_steps=1, log=[])
    clock.start()

    with pytest.raises(RuntimeError, match="disk full"), clock.paused("checkpoint_seconds"):
        raise RuntimeError("disk full")

    assert recorder.metrics["checkpoint_seconds"] > 0
