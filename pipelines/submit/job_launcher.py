"""The launcher of a step on a cluster: workers that are pods of a training job, not processes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines import events
from pipelines.cluster import Layout
from pipelines.cluster_config import ClusterConfig
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.launch import OnEvent, OnLine, OnStart
from pipelines.network_config import NetworkConfig
from pipelines.preemption import Preemption
from pipelines.strategies import Framework
from pipelines.submit.job_runner import JobListener, run_job
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.own_pod import own_pod
from pipelines.submit.training_job import JobRequest, build_job, job_name

__all__ = ["launch_job"]

_NO_PROCESS = 0


def launch_job(
    cluster: ClusterConfig,
    framework: Framework,
    arguments: Sequence[str],
    *,
    logs: Path,
    layout: Layout,
    network: NetworkConfig,
    threads_per_worker: int,
    environment: Mapping[str, str],
    on_event: OnEvent,
    on_line: OnLine,
    on_start: OnStart,
    preemption: Preemption,
) -> float:
    """What ``pipelines.launch.launch`` does, by a training job; every path must be on the claim.

    Rank 0's output is told, and goes to ``logs/rank0.log``; the other pods' stays with them. A pod
    has no process id here, so ``on_start`` is told 0, once.
    """
    if network.hosts > 1:
        raise InputError("network.hosts: hosts are emulated on one machine, not on a cluster")
    output = Path(arguments[arguments.index("--output") + 1])
    request = JobRequest(
        name=job_name(framework, arguments[0], output.name),
        framework=framework,
        layout=layout,
        arguments=arguments,
        threads_per_worker=threads_per_worker,
        variables=environment,
        owner=own_pod(cluster.namespace),
    )
    job = build_job(cluster, request)
    with (logs / "rank0.log").open("w", buffering=1) as log:

        def tell(line: str) -> None:
            log.write(f"{line}\n")
            events.say(line)
            on_line("rank0", line)

        listener = JobListener(
            on_event=lambda event: on_event(0, event),
            on_line=tell,
            on_running=lambda: on_start(_NO_PROCESS, ()),
            on_state=lambda state: events.say(f"job {request.name}: {state}"),
        )
        api = KubernetesApi(cluster.namespace)
        with preemption.watched():  # if nobody around does, the job would outlive this step
            try:
                return run_job(api, cluster, job, listener, preemption=preemption)
            except PreemptedError as error:
                if preemption.asked or arguments[0] == "train":
                    raise
                raise WorkError(str(error)) from None  # there is nothing to go on with
