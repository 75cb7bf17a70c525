"""The prepared charts, from tracked runs to what a browser draws of them."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.page.look import COLOURS
from pipelines.runs import COMPARABLE_FIELDS, PARITY_FIELDS, PARITY_PASSED

TANDEM = Path(sys.executable).with_name("tandem")
QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STUDY = "20250601T120000Z"
STRATEGIES = {"tf": "multi_worker_mirrored", "torch": "ddp"}
VERSIONS = {"tf": "2.21.0", "torch": "2.13.0"}
RATES = {("tf", 1): 2300.0, ("tf", 2): 3900.0, ("torch", 1): 2500.0, ("torch", 2): 4500.0}
"""Examples per second by framework and workers, of both repeats."""
LEGEND = {framework: f"{framework} {name} weak" for framework, name in STRATEGIES.items()}
WINDOW = {"width": 2000, "height": 1500}
SECONDS = 400
"""The UI's scripts are large, and its charts ask for every run's history."""

METRICS = [
    "examples_per_second",
    "scaling_efficiency",
    "step_seconds",
    "wall_seconds",
    "eval_accuracy",
]
"""The charts, in their order."""

# Of every chart on the page: what its card says, its axes, and what it draws.
DRAWN = """
var words = plot => plot
    .closest('[data-testid="experiment-view-compare-runs-card"]').innerText.split('\\n');
[...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
    title: words(plot)[0],
    legend: words(plot).slice(1 + words(plot).lastIndexOf('Step')),
    xTitle: plot.querySelector('.xtitle')?.textContent,
    xTicks: [...plot.querySelectorAll('.xtick text')].map(tick => tick.textContent),
    yTicks: [...plot.querySelectorAll('.ytick text')].map(tick => tick.textContent),
    markers: plot.querySelectorAll('.scatterlayer .points path').length,
    traces: plot.data.map(trace => ({
        name: trace.name, x: trace.x, y: trace.y, mode: trace.mode, colour: trace.marker.color,
    })),
}))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on the PATH"),
]


class Browser:
    """Headless Chromium, spoken to in its DevTools protocol over a pair of pipes."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}"),
        ]
        # Chromium reads commands from descriptor 3 and answers on 4.
        moved = f'exec "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "bash", str(CHROMIUM), *options],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._unread = b""
        self._number = 0
        self._session: str | None = None

    def open(self, address: str) -> None:
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._send(
            "Emulation.setDeviceMetricsOverride", **WINDOW, deviceScaleFactor=1, mobile=False
        )
        self._send("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass  # an event
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium ended"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


def track_study(config: Config) -> None:
    """Two repeats of each cell, and the verdict of parity that a comparison rests on."""
    tracking.prepare_store(config)
    common = dict.fromkeys(COMPARABLE_FIELDS, "alike") | {"batch_size_per_worker": 64, "steps": 200}
    sides = {
        framework: {
            "strategy": STRATEGIES[framework],
            "strategy_options": "{}",
            "framework_version": VERSIONS[framework],
            "software_build": common["software_build"],
        }
        for framework in STRATEGIES
    }
    verdict = {field: common[field] for field in PARITY_FIELDS} | {
        f"{framework}_{field}": value
        for framework, side in sides.items()
        for field, value in side.items()
    }
    verdict |= {"parity_steps": 200, "parity_workers": "1, 2"}
    track(config, "parity", "parity", verdict, {PARITY_PASSED: 1.0})
    for (framework, workers), rate in RATES.items():
        for repeat in range(2):
            place = {"framework": framework, "workers": workers, "repeat": repeat}
            track(
                config,
                f"{framework} {STRATEGIES[framework]} x{workers} #{repeat + 1}",
                "cell",
                {"study": config.name, **common, **sides[framework], **place, "scaling": "weak"},
                {
                    "examples_per_second": rate,
                    "step_seconds": 64 * workers / rate,
                    "wall_seconds": 20.0 + workers,
                    "eval_accuracy": 0.98,
                },
            )


def track(
    config: Config, name: str, kind: Any, params: dict[str, object], metrics: dict[str, float]
) -> None:
    run_id = tracking.create_run(config, name, kind, STUDY, params)
    tracking.log_metrics(config, run_id, metrics)
    tracking.finish_run(config, run_id, "FINISHED")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("charts")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """What `tandem ui` prints after `tandem compare`, while it serves."""
    config = load_config(QUICKSTART, [f"output={folder / 'out'}"])
    track_study(config)
    options = ["--config", str(QUICKSTART), "--set", f"output={folder / 'out'}"]
    compared = subprocess.run(
        [str(TANDEM), "compare", *options], cwd=folder, capture_output=True, text=True
    )
    assert compared.returncode == 0, compared.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = folder / "ui.log"
    with said.open("w") as log:
        served = subprocess.Popen(
            [str(TANDEM), "ui", *options, "--no-browser", "--port", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: listens(port) or served.poll() is not None)
        assert served.poll() is None, said.read_text()
        [line] = [line for line in said.read_text().splitlines() if line.startswith("MLflow: ")]
        yield line.removeprefix("MLflow: ")
    finally:
        served.terminate()
        served.wait()


@pytest.fixture(scope="module")
def browser(address: str, folder: Path) -> Iterator[Browser]:
    opened = Browser(folder / "profile")
    try:
        opened.open(address)
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def charts(browser: Browser, folder: Path) -> list[dict[str, Any]]:
    """Every chart, once both frameworks are in all of them."""

    def drawn() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = browser.evaluate(DRAWN)
        return found

    def complete() -> bool:
        found = drawn()
        return len(found) == len(METRICS) and all(
            {line["name"] for line in chart["traces"]} >= set(LEGEND.values()) for chart in found
        )

    try:
        wait_for(complete)
    finally:
        browser.screenshot(folder / "charts.png")
        print(f"what the browser shows: {folder / 'charts.png'}")
    return drawn()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.5)


def curves(charts: list[dict[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    """The line with markers of every run in a metric's chart, by the run's name."""
    [chart] = [chart for chart in charts if chart["title"] == metric]
    return {line["name"]: line for line in chart["traces"] if "markers" in line["mode"]}


def test_the_charts_are_those_of_the_summaries_alone(charts: list[dict[str, Any]]) -> None:
    assert [chart["title"] for chart in charts] == METRICS
    for chart in charts:
        assert set(curves(charts, chart["title"])) == set(LEGEND.values())
        assert chart["legend"] == [f"{name} ({chart['title']})" for name in LEGEND.values()]


def test_throughput_and_efficiency_are_drawn_by_workers(charts: list[dict[str, Any]]) -> None:
    for framework, name in LEGEND.items():
        one, two = RATES[framework, 1], RATES[framework, 2]
        throughput = curves(charts, "examples_per_second")[name]
        efficiency = curves(charts, "scaling_efficiency")[name]

        assert (throughput["x"], throughput["y"]) == ([1, 2], [one, two])
        assert efficiency["x"] == [1, 2]
        assert efficiency["y"] == pytest.approx([1, two / (2 * one)])


def test_every_point_and_axis_is_on_the_page(charts: list[dict[str, Any]]) -> None:
    for chart in charts:
        assert chart["markers"] == 4
        assert chart["xTitle"] == "Step"
        assert {"0", "1", "2"} <= set(chart["xTicks"])
        assert chart["yTicks"][0] == "0"
        assert len(chart["yTicks"]) > 2


def test_a_framework_has_the_reports_colour(charts: list[dict[str, Any]]) -> None:
    for chart in charts:
        drawn = {name: line["colour"] for name, line in curves(charts, chart["title"]).items()}
        assert drawn == {LEGEND["tf"]: COLOURS["tf"], LEGEND["torch"]: COLOURS["torch"]}
