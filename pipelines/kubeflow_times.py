"""What a run cost on Kubeflow Pipelines, from the documents that its API and Kubernetes return.

A component has two pods there: its driver's, which asks the cache and works out its inputs, and
its executor's, in which its own code runs. So has every group of tasks (the whole DAG, a
condition) a driver's. The API lists all of these as tasks, told apart by their names; a task's
``create_time`` is the whole run's, so waiting is counted from a pod's ``start_time``.

Times of the API are whole seconds. Interpreter and imports count as running here, since nobody
outside a container sees where its work begins.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from pipelines.errors import InputError

__all__ = ["PodStart", "RunTimes", "TaskTimes", "pod_starts", "run_times"]

_EXECUTOR, _DRIVER = "executor", "-driver"
_NEVER_RAN = frozenset({"SKIPPED", "PENDING", "RUNTIME_STATE_UNSPECIFIED"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|µs|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}


@dataclass(frozen=True)
class PodStart:
    """How a pod came to run, by its events; None: no event tells."""

    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    """Its main container, or its last one where none has that name."""
    pull_seconds: float = 0.0
    """Pulling images, all containers' added up; 0 where the node had them."""


@dataclass(frozen=True)
class TaskTimes:
    """One component of the DAG."""

    seconds: float
    """From the start of its driver to the end of its last pod."""
    startup_seconds: float | None
    """From there until its own container ran; None: it never did, or nothing tells when."""
    running_seconds: float | None
    """From then until its end."""
    scheduling_seconds: float | None
    """Its pods' waiting for a node, added up; None: no events are known."""
    pull_seconds: float | None
    """Its pods' pulling of images, added up; None: no events are known."""
    pods: int
    cached: bool
    """Whether it was answered from the cache, so that its driver alone ran."""


@dataclass(frozen=True)
class RunTimes:
    """A whole run."""

    seconds: float
    """From its creation to its end."""
    tasks: dict[str, TaskTimes]
    """By name, in the order in which they began; what a loop repeats has a number."""
    pods: int
    """All of them, those of groups included."""
    running_seconds: float
    """In which the container of at least one component ran."""

    @property
    def overhead_seconds(self) -> float | None:
        """In which none did; None: of a component that ran, nothing tells when."""
        ran = [task for task in self.tasks.values() if not task.cached]
        if any(task.running_seconds is None for task in ran):
            return None
        return self.seconds - self.running_seconds


def run_times(document: Mapping[str, Any], pods: Mapping[str, PodStart] | None = None) -> RunTimes:
    """Times of a run that has ended, as ``GET /apis/v2beta1/runs/ID`` returns it.

    ``pods`` is what ``pod_starts`` found. Without it, a container's start is what the run's own
    history of states tells.

    Raises:
        InputError: if the document is no such run, has no tasks, or the run has not ended.
    """
    run = _parse(_Run, document, "run of Kubeflow Pipelines")
    if run.created_at is None or run.finished_at is None:
        raise InputError("run of Kubeflow Pipelines: it has not ended: no finished_at")
    known = pods or {}
    nodes = {_key(task.pod_name): task for task in run.run_details.task_details}
    drivers = {
        task.display_name.removesuffix(_DRIVER): task
        for task in nodes.values()
        if task.display_name.endswith(_DRIVER) and not _executors(task, nodes)
    }
    tasks: dict[str, TaskTimes] = {}
    running: list[tuple[datetime, datetime]] = []
    components = [task for task in nodes.values() if _executors(task, nodes)]
    for task in sorted(components, key=lambda task: (task.start_time is None, task.start_time)):
        if task.display_name.startswith(_EXECUTOR):
            continue  # a retried one, whose attempts are its children
        ran = [pod for pod in _executors(task, nodes) if pod.state not in _NEVER_RAN]
        driver = drivers.get(task.display_name)
        found, ran_from_to = _task_times(task, driver, ran, known)
        tasks[_unlike(tasks, task.display_name)] = found
        running += ran_from_to
    groups = [
        driver
        for name, driver in drivers.items()
        if driver.state not in _NEVER_RAN and name not in {task.display_name for task in components}
    ]
    if not tasks:
        raise InputError("run of Kubeflow Pipelines: its record has no component's task")
    return RunTimes(
        seconds=_between(run.created_at, run.finished_at),
        tasks=tasks,
        pods=len(groups) + sum(task.pods for task in tasks.values()),
        running_seconds=_covered(running),
    )


def pod_starts(document: Mapping[str, Any]) -> dict[str, PodStart]:
    """Pod -> how it came to run, from a Kubernetes list of core/v1 events.

    Raises:
        InputError: if the document is no such list.
    """
    events = _parse(_EventList, document, "events of Kubernetes").items
    by_pod: dict[str, list[_Event]] = {}
    for event in events:
        if event.about.kind == "Pod" and event.time is not None:
            by_pod.setdefault(event.about.name, []).append(event)
    return {name: _pod_start(of_pod) for name, of_pod in by_pod.items()}


def _missing_as_none(value: object) -> object:
    """Go writes a time that was never set as the first second of year 1, or of 1970."""
    return None if isinstance(value, str) and value[:4] in ("", "0001", "1970") else value


_Time = Annotated[datetime | None, BeforeValidator(_missing_as_none)]


class _Status(BaseModel):
    state: str = ""
    update_time: _Time = None


class _Child(BaseModel):
    pod_name: str = ""


class _Task(BaseModel):
    display_name: str = ""
    pod_name: str = ""
    state: str = ""
    start_time: _Time = None
    end_time: _Time = None
    state_history: list[_Status] = []
    child_tasks: list[_Child] = []


class _Details(BaseModel):
    task_details: list[_Task] = []


class _Run(BaseModel):
    created_at: _Time = None
    finished_at: _Time = None
    run_details: _Details


class _About(BaseModel):
    kind: str = ""
    name: str = ""
    path: Annotated[str, Field(alias="fieldPath")] = ""


class _Event(BaseModel):
    about: Annotated[_About, Field(alias="involvedObject")]
    reason: str = ""
    message: str = ""
    first: Annotated[_Time, Field(alias="firstTimestamp")] = None
    exact: Annotated[_Time, Field(alias="eventTime")] = None

    @property
    def time(self) -> datetime | None:
        return self.exact or self.first


class _EventList(BaseModel):
    items: list[_Event]


_Model = TypeVar("_Model", bound=BaseModel)


def _parse(model: type[_Model], document: Mapping[str, Any], what: str) -> _Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{what}: {where}: {first['msg'].lower()}") from None


def _key(name: str) -> str:
    """What a node's name and its pod's have in common: the number at their end."""
    last = name.rpartition("-")[2]
    return last if last.isdigit() else name


def _executors(task: _Task, nodes: Mapping[str, _Task]) -> list[_Task]:
    """The pods below a task in which its own code ran; a retried one has several."""
    found = []
    for child in task.child_tasks:
        below = nodes.get(_key(child.pod_name))
        if below is not None and below.display_name.startswith(_EXECUTOR):
            found += _executors(below, nodes) or [below]
    return found


def _task_times(
    task: _Task, driver: _Task | None, ran: list[_Task], known: Mapping[str, PodStart]
) -> tuple[TaskTimes, list[tuple[datetime, datetime]]]:
    pods = ran if driver is None else [driver, *ran]
    begun = min(_times(pods, "start_time"), default=task.start_time)
    ended = max(_times(pods, "end_time"), default=task.end_time)
    if begun is None or ended is None:
        raise InputError(f"run of Kubeflow Pipelines: task '{task.display_name}' has no times")
    intervals = [
        (started, pod.end_time)
        for pod in ran
        if pod.end_time is not None and (started := _started(pod, known)) is not None
    ]
    startup = running = None
    if intervals:
        startup, running = _between(begun, min(intervals)[0]), _covered(intervals)
    told = [(pod, known[pod.pod_name]) for pod in pods if pod.pod_name in known]
    found = TaskTimes(
        seconds=_between(begun, ended),
        startup_seconds=startup,
        running_seconds=running,
        scheduling_seconds=_waiting(told) if told else None,
        pull_seconds=sum(start.pull_seconds for _, start in told) if told else None,
        pods=len(pods),
        cached=not ran,
    )
    return found, intervals


def _times(tasks: Iterable[_Task], name: Literal["start_time", "end_time"]) -> Iterator[datetime]:
    return (time for task in tasks if (time := getattr(task, name)) is not None)


def _started(pod: _Task, known: Mapping[str, PodStart]) -> datetime | None:
    """When its own container began to run: its event, else the first such state."""
    if pod.pod_name in known and known[pod.pod_name].started_at is not None:
        return known[pod.pod_name].started_at
    states = (status.update_time for status in pod.state_history if status.state == "RUNNING")
    return min((time for time in states if time is not None), default=None)


def _waiting(told: Iterable[tuple[_Task, PodStart]]) -> float:
    """From a pod's creation to its place on a node; the two clocks may differ by their rounding."""
    return sum(
        max(_between(pod.start_time, start.scheduled_at), 0.0)
        for pod, start in told
        if pod.start_time is not None and start.scheduled_at is not None
    )


def _unlike(tasks: Mapping[str, TaskTimes], name: str) -> str:
    alike, number = name, 1
    while alike in tasks:
        number += 1
        alike = f"{name} #{number}"
    return alike


def _covered(intervals: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds that lie within at least one of them."""
    edges = sorted([(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals])
    seconds, depth = 0.0, 0
    for (time, change), (following, _) in pairwise(edges):
        depth += change
        if depth > 0:
            seconds += _between(time, following)
    return seconds


def _between(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


@dataclass
class _Pulling:
    since: dict[str, datetime] = field(default_factory=dict)
    seconds: float = 0.0

    def take(self, event: _Event) -> None:
        if event.time is None:
            return
        if event.reason == "Pulling":
            self.since[event.about.path] = event.time
        elif event.reason == "Pulled" and event.about.path in self.since:
            begun = self.since.pop(event.about.path)
            told = _pull_duration(event.message)
            self.seconds += _between(begun, event.time) if told is None else told


def _pod_start(events: list[_Event]) -> PodStart:
    ordered = sorted(events, key=lambda event: (event.time is None, event.time))
    scheduled = [event.time for event in ordered if event.reason == "Scheduled"]
    started = [event for event in ordered if event.reason == "Started"]
    main = [event for event in started if event.about.path.endswith("{main}")] or started
    pulling = _Pulling()
    for event in ordered:
        pulling.take(event)
    return PodStart(
        scheduled_at=scheduled[-1] if scheduled else None,
        started_at=main[-1].time if main else None,
        pull_seconds=pulling.seconds,
    )


def _pull_duration(message: str) -> float | None:
    """What the kubelet says of a pull, with its waiting for other pulls where it says so.

    Such as ``Successfully pulled image "x" in 1.2s (1m2.5s including waiting)``.
    """
    said = re.search(r"\((\S+) including waiting\)", message) or re.search(r" in (\S+)", message)
    parts = _DURATION.findall(said[1]) if said else []
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
