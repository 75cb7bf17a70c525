"""Events of a cluster that answers as it is told here."""

from typing import Any

import pytest

from pipelines.errors import WorkError
from pipelines.submit import pod_events
from pipelines.submit.pod_events import PodEvents
from tests.pipelines.kubeflow_documents import TRAIN_POD, train_events


class Cluster:
    def __init__(self, *answers: list[dict[str, Any]] | WorkError) -> None:
        self.answers = [*answers]

    def __call__(self, namespace: str) -> "Cluster":
        assert namespace == "tandem"
        return self

    def pod_events(self) -> list[dict[str, Any]]:
        answer = self.answers.pop(0)
        if isinstance(answer, WorkError):
            raise answer
        return answer


def asked(monkeypatch: pytest.MonkeyPatch, *answers: list[dict[str, Any]] | WorkError) -> Cluster:
    cluster = Cluster(*answers)
    monkeypatch.setattr(pod_events, "KubernetesApi", cluster)
    return cluster


def test_what_the_cluster_forgets_while_a_run_goes_on_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_events, "_SECONDS_BETWEEN", 0.0)
    items = train_events()["items"]
    asked(monkeypatch, items[:3], items[2:], [])
    events = PodEvents("tandem")

    events.take_now_and_then()
    events.take_now_and_then()

    assert events.starts()[TRAIN_POD].pull_seconds == 25.25


def test_a_cluster_is_asked_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = asked(monkeypatch, train_events()["items"])
    events = PodEvents("tandem")

    events.take_now_and_then()
    assert len(cluster.answers) == 1
    assert TRAIN_POD in events.starts()
    assert cluster.answers == []


def test_a_cluster_that_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_events, "_SECONDS_BETWEEN", 0.0)
    cluster = asked(monkeypatch, train_events()["items"], WorkError("403 forbidden"), [])
    events = PodEvents("tandem")

    for _ in range(3):
        events.take_now_and_then()

    assert TRAIN_POD in events.starts()
    assert cluster.answers == [[]]
