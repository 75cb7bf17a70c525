import io

import pytest
from rich.console import Console

from pipelines.predict import parse_network, predict, print_prediction


def printed(prediction, width=120):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_prediction(prediction, console)
    return console.file.getvalue()


def test_every_table_is_labelled_and_has_its_row_whole(world):
    prediction = predict(world().study().runs, [8, 1024], parse_network("1gbit"))
    text = printed(prediction, 100)
    assert text.lstrip().startswith("PREDICTION, not a measurement")
    assert "network: 1gbit" in text
    for name in ("TensorFlow multi_worker_mirrored", "PyTorch ddp"):
        assert f"PREDICTED: {name}, weak scaling" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("1,024")]
    point = prediction.forecasts[0].points[-1]
    assert len(rows) == 2
    assert rows[0][1] == f"{1000 * point.step_seconds:.1f}"
    assert f"{100 * point.efficiency:.1f}" in rows[0]


@pytest.mark.parametrize("word", ["stragglers", "congestion", "topologies"])
def test_it_says_what_the_intervals_do_not_hold(world, word):
    assert word in " ".join(printed(predict(world().study().runs, [8])).split())
