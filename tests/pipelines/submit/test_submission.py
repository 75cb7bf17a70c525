from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import submit as action
from pipelines.cli.narrator import Narrator
from pipelines.cli.submit import write_dry_run
from pipelines.cluster_config import CLUSTER_VARIABLE
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, WorkError
from pipelines.study import plan
from pipelines.submit.ir_check import check_pipeline
from pipelines.submit.submission import JOBS_FOLDER, on_cluster, write_submission
from pipelines.submit.surroundings import dags_of, read_pipeline, surround

STUDIES = [
    path
    for path in sorted((PROJECT_ROOT / "configs").glob("*.yaml"))
    if "workload" in yaml.safe_load(path.read_text())
]
QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's torch pipeline, its training step on two workers."""
    folder = tmp_path_factory.mktemp("dry") / "run"
    write_dry_run(load_config(QUICKSTART), Narrator(), ["torch"], folder, workers=2)
    return folder


@pytest.mark.parametrize("config", STUDIES, ids=lambda path: path.stem)
def test_a_dry_run_of_every_shipped_study_is_whole_and_its_jobs_are_valid(
    config: Path, tmp_path: Path, validate_job: Callable[[dict[str, Any]], None]
) -> None:
    loaded = load_config(config)

    said = write_dry_run(loaded, Narrator(), ["study", "ingest"], tmp_path / "dry")

    check_pipeline(tmp_path / "dry" / "study_pipeline.yaml")
    check_pipeline(tmp_path / "dry" / "ingest_pipeline.yaml")
    jobs = sorted((tmp_path / "dry" / JOBS_FOLDER).iterdir())
    assert [job.stem for job in jobs] == sorted(cell.slug for cell in plan(loaded))
    assert len(said["files"]) == len(jobs) + 2
    for job in jobs:
        validate_job(yaml.safe_load(job.read_text()))


@pytest.mark.long
@pytest.mark.both_frameworks
@pytest.mark.parametrize("config", STUDIES, ids=lambda path: path.stem)
def test_a_dry_run_of_the_frameworks_dags_is_whole_and_starts_tfx_on_local_folders(
    config: Path, tmp_path: Path, validate_job: Callable[[dict[str, Any]], None]
) -> None:
    loaded = load_config(config)

    write_dry_run(loaded, Narrator(), ["tf", "torch"], tmp_path / "dry", workers=2)

    check_pipeline(tmp_path / "dry" / "torch_pipeline.yaml")
    check_pipeline(tmp_path / "dry" / "tf_pipeline.yaml")
    specification, platform = read_pipeline(tmp_path / "dry" / "tf_pipeline.yaml")
    for container in containers(specification):
        assert container["image"] == loaded.cluster.image("tf")
        assert container["command"] == ["python", "-m", "pipelines.submit.tfx_step"]
    jobs = sorted((tmp_path / "dry" / JOBS_FOLDER).iterdir())
    assert [job.stem for job in jobs] == ["tf-pipeline-train-x2", "torch-pipeline-train-x2"]
    for job in jobs:
        validate_job(yaml.safe_load(job.read_text()))
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(mounted) == 8


def containers(specification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for executor in specification["deploymentSpec"]["executors"].values():
        yield executor["container"]


def test_every_step_has_the_claim_the_cluster_and_the_trackers_credentials(written: Path) -> None:
    specification, platform = read_pipeline(written / "torch_pipeline.yaml")

    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == specification["deploymentSpec"]["executors"].keys()
    for executor in executors.values():
        [mount] = executor["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == ("tandem-data", "/mnt/tandem")
        [secret] = executor["secretAsEnv"]
        assert secret["secretName"] == "tandem-tracking"
        # What the restricted standard wants of a step, and Kubeflow Pipelines does not add.
        assert executor["securityContext"] == {
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "runAsNonRoot": True,
        }
    for container in containers(specification):
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert CLUSTER_VARIABLE in variables
    for dag in dags_of(specification):
        assert all(not task["cachingOptions"] for task in dag["tasks"].values())


def test_a_training_step_of_several_workers_has_a_job_beside_it(
    written: Path, validate_job: Callable[[dict[str, Any]], None]
) -> None:
    [file] = (written / JOBS_FOLDER).iterdir()
    job = yaml.safe_load(file.read_text())

    validate_job(job)
    assert file.stem == "torch-pipeline-train-x2"
    assert job["spec"]["trainer"]["numNodes"] == 2
    assert job["spec"]["trainer"]["command"][3] == "step"
    specification, _ = read_pipeline(written / "torch_pipeline.yaml")
    train = specification["root"]["dag"]["tasks"]["train"]
    assert train["inputs"]["parameters"]["workers"]["runtimeValue"]["constant"] == 2


@pytest.mark.parametrize(
    ("settings", "device", "count", "labels"),
    [
        (
            ["training.device=auto", "cluster.accelerator={kind: gpu, node_selector: {gpu: h100}}"],
            *("nvidia.com/gpu", "1", {"gpu": "h100"}),
        ),
        (
            [
                "cluster.accelerator={kind: tpu, per_worker: 8, tpu_type: v5e, topology: 2x4}",
                "tf.strategy=tpu",
            ],
            *("google.com/tpu", "8"),
            {
                "cloud.google.com/gke-tpu-accelerator": "v5e",
                "cloud.google.com/gke-tpu-topology": "2x4",
            },
        ),
    ],
    ids=["gpu", "tpu"],
)
def test_a_step_that_trains_by_itself_gets_what_a_workers_pod_has(
    written: Path, settings: list[str], device: str, count: str, labels: dict[str, str]
) -> None:
    specification, _ = read_pipeline(written / "torch_pipeline.yaml")
    config = load_config(QUICKSTART, [*settings, "cluster.shared_memory=2Gi"])

    platform = surround(specification, config.cluster, frozenset({"exec-train"}))

    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    of_train = executors.pop("exec-train")
    assert of_train["nodeSelector"] == {"labels": labels}
    assert of_train["tolerations"][0]["key"] == device
    assert of_train["enabledSharedMemory"]["size"] == "2Gi"
    assert not any("nodeSelector" in each for each in executors.values())
    [asked] = [each["resources"] for each in containers(specification) if "resources" in each]
    assert asked == {
        "resourceCpuRequest": "1",
        "resourceCpuLimit": "1",
        "resourceMemoryRequest": "4Gi",
        "resourceMemoryLimit": "4Gi",
        "accelerator": {"resourceType": device, "resourceCount": count},
    }


def test_everything_of_a_run_is_on_the_claim_and_tracked_by_the_clusters_server() -> None:
    config = on_cluster(
        load_config(QUICKSTART, ["tracking.uri=http://me:secret@here", "output=/home/me/out"])
    )

    assert config.output == Path("/mnt/tandem/tandem/quickstart")
    assert config.dataset_dir == Path("/mnt/tandem/tandem/quickstart/data")
    assert config.tracking_uri == "http://mlflow:5000"
    assert on_cluster(config) == config


def test_no_secret_of_the_configuration_is_in_what_is_sent(tmp_path: Path) -> None:
    secret = "s3cr3t"
    config = load_config(
        QUICKSTART,
        [
            f"tracking.uri=http://me:{secret}@here",
            *("data.source=csv", f"data.path=https://me:{secret}@data/x.csv?sig={secret}"),
            "data.label=x",
        ],
    )

    write_dry_run(config, Narrator(), ["study", "torch"], tmp_path / "dry", workers=2)

    for file in (tmp_path / "dry").rglob("*.yaml"):
        assert secret not in file.read_text()


def test_a_dry_run_replaces_another_and_nothing_else(tmp_path: Path) -> None:
    config, folder = load_config(QUICKSTART), tmp_path / "dry"
    write_dry_run(config, Narrator(), ["study"], folder)

    write_dry_run(config, Narrator(), ["ingest"], folder)

    assert [path.name for path in folder.iterdir()] == ["ingest_pipeline.yaml"]
    (folder / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"thesis\.txt"):
        write_dry_run(config, Narrator(), ["ingest"], folder)


def test_a_dry_run_that_fails_leaves_what_was_there_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = load_config(QUICKSTART), tmp_path / "dry"
    write_dry_run(config, Narrator(), ["ingest"], folder)

    def fails(config: Config, names: Any, unfinished: Path, workers: int) -> None:
        write_submission(config, names, unfinished, workers)
        raise WorkError("the disk is full")

    monkeypatch.setattr(action, "write_submission", fails)
    with pytest.raises(WorkError):
        write_dry_run(config, Narrator(), ["study"], folder)

    assert [path.name for path in tmp_path.iterdir()] == ["dry"]
    assert [path.name for path in folder.iterdir()] == ["ingest_pipeline.yaml"]
