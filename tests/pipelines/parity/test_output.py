import io
import json
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from rich.console import Console

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.parity.model import Parity
from pipelines.parity.output import write_parity
from pipelines.parity.prove import prove
from pipelines.parity.terminal import print_parity

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a page has, would fetch, and says outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside else data


@pytest.fixture
def judge(
    load_quickstart: Callable[..., Config], digits: Dataset, frameworks: Callable[..., None]
) -> Callable[..., Parity]:
    def run(*overrides: str, **changes: str) -> Parity:
        frameworks(**changes)
        short = ["parity.steps=12", "parity.workers=[1]", "parity.floor_runs=1"]
        config = load_quickstart(*short, *overrides)
        return prove(config, digits, {"workload": NASTY, "parity_steps": 12}, lambda *_: None)

    return run


def printed(parity: Parity, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_parity(parity, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    return text


def test_the_page_and_the_figures_are_written_side_by_side(
    judge: Callable[..., Parity], load_quickstart: Callable[..., Config]
) -> None:
    parity = judge()

    html, data = write_parity(parity, load_quickstart().output)

    assert html.parent == data.parent == load_quickstart().output / "parity"
    assert Parity.model_validate_json(data.read_text()) == parity
    page = Page(html.read_text(encoding="utf-8"))
    assert page.fetched == []
    assert not {"link", "iframe", "img", "object", "base"} & set(page.tags)
    assert "both frameworks compute the same" in page.text
    assert "tf x1 and torch x1" in page.text
    for name in ("losses", "loss", "gradient_norm", "weight_norm"):
        assert f'id="chart-{name}"' in html.read_text(encoding="utf-8")
    assert NASTY in page.text


def test_a_failure_is_told_on_the_page_and_on_the_terminal(
    judge: Callable[..., Parity], load_quickstart: Callable[..., Config]
) -> None:
    parity = judge(torch="loss[3:] = np.inf")

    html, data = write_parity(parity, load_quickstart().output)
    page = Page(html.read_text(encoding="utf-8"))

    assert "the frameworks differ" in page.text
    assert parity.summary in page.text
    assert "loss differs at step 4" in page.text
    assert "loss differs at step 4" in printed(parity)
    assert json.loads(data.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("precision", "said"), [("float32", "1e-06"), ("float64", "1e-12"), ("bfloat16", "Mixed")]
)
def test_the_rule_is_told(judge: Callable[..., Parity], precision: str, said: str) -> None:
    text = printed(judge(f"training.precision={precision}"))

    assert precision in text
    assert said in text
    assert "agree" in text


def test_a_narrow_terminal_still_gets_every_figure(judge: Callable[..., Parity]) -> None:
    text = printed(judge(), width=80)

    for said in ("tf x1 and torch x1", "agree", "gradient norm", "weight norm", "final weights"):
        assert said in text
