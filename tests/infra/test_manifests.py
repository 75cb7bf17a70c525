"""The manifests, as far as a machine without a cluster can tell."""

import copy
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelines
from pipelines import launch
from pipelines.environments import PROJECT_ROOT

Resource = dict[str, Any]
Resources = Callable[[str], list[Resource]]

KUBERNETES = PROJECT_ROOT / "infra" / "kubernetes"
OVERLAYS = ["local", "gpu", "tpu"]
COMPONENTS = ["kueue", "kubeflow"]
KUBERNETES_VERSION = "1.34"

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def find(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = (
        each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name
    )
    return found


def pod_specs(resource: Any) -> Iterator[Resource]:
    """Every pod's specification, however deep; a pod is what has containers."""
    if isinstance(resource, list):
        for each in resource:
            yield from pod_specs(each)
    elif isinstance(resource, dict):
        if "containers" in resource:
            yield resource
        for each in resource.values():
            yield from pod_specs(each)


def node(runtime: Resource) -> tuple[Resource, Resource]:
    """The specification of a training pod, and its container."""
    (pod,) = pod_specs(runtime)
    (container,) = pod["containers"]
    return pod, container


def environment(container: Resource) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


@pytest.mark.parametrize("which", [0, 1], ids=["gpu nodes", "kind"])
def test_the_guides_overlays_put_everything_into_pipelines_namespace(
    build: Callable[[Path], list[Resource]], tmp_path: Path, which: int
) -> None:
    guide = (PROJECT_ROOT / "docs" / "cluster.md").read_text()
    overlays = re.findall(
        r"```yaml\n( *# my-cluster/kustomization\.yaml.*?) *```", guide, re.DOTALL
    )
    assert len(overlays) == 2
    (tmp_path / "tandem").symlink_to(PROJECT_ROOT)
    own = tmp_path / "my-cluster"
    own.mkdir()
    (own / "kustomization.yaml").write_text(textwrap.dedent(overlays[which]))

    made = build(own)

    assert {"TrainingRuntime", "Deployment", "PersistentVolumeClaim"} <= {
        each["kind"] for each in made
    }
    assert {each["metadata"].get("namespace") for each in made} == {"kubeflow"}


@each_overlay
def test_every_resource_fits_the_kubernetes_api_strictly(
    resources: Resources, overlay: str
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    beyond = []
    for resource in resources(overlay):
        try:
            kubernetes_validate.validate(resource, KUBERNETES_VERSION, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            beyond.append(resource["kind"])
    assert set(beyond) == {"TrainingRuntime"}


@each_overlay
def test_the_training_runtimes_fit_trainers_published_definition_strictly(
    resources: Resources, crd_schema: Callable[[str], Resource], overlay: str
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = crd_schema("trainingruntimes")
    runtimes = [each for each in resources(overlay) if each["kind"] == "TrainingRuntime"]
    names = {"tandem-tf"} if overlay == "tpu" else {"tandem-tf", "tandem-torch"}
    assert {each["metadata"]["name"] for each in runtimes} == names
    for runtime in runtimes:
        jsonschema.validate(runtime, schema)


def test_the_strict_definition_finds_a_misspelt_field_of_a_pod(
    resources: Resources, crd_schema: Callable[[str], Resource]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = yaml.safe_dump(find(resources("local"), "TrainingRuntime", "tandem-tf"))
    misspelt = yaml.safe_load(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(jsonschema.ValidationError, match="readOnlyRootFileSystem"):
        jsonschema.validate(misspelt, crd_schema("trainingruntimes"))


def restricted_violations(pod: Resource) -> list[str]:
    """What the Pod Security Standard ``restricted`` refuses in a pod; read from its definition."""
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes", []):
        found += [f"volume {kind}" for kind in set(volume) - {"name"} - allowed]
    around = pod.get("securityContext", {})
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = {**around, **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            found.append("may run as root")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("no seccomp profile")
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            found.append("may gain privileges")
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            found.append("keeps capabilities")
        found += [
            f"adds {each}" for each in set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}
        ]
        found += ["host port" for port in container.get("ports", []) if port.get("hostPort")]
    return found


@each_overlay
def test_every_pod_meets_the_restricted_standard_and_more(
    resources: Resources, overlay: str
) -> None:
    built = resources(overlay)
    pods = list(pod_specs(built))
    assert len(pods) == (4 if overlay == "tpu" else 5)
    for pod in pods:
        assert restricted_violations(pod) == []
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            written = {each["mountPath"] for each in container["volumeMounts"]}
            assert "/tmp" in written
    labels = find(built, "Namespace", "tandem")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume hostPath"),
        ({"securityContext": {}}, "may run as root"),
        ({"containers": [{"name": "x"}]}, "keeps capabilities"),
    ],
)
def test_the_check_of_the_standard_sees_what_it_refuses(
    resources: Resources, change: Resource, violation: str
) -> None:
    pod, _ = node(find(resources("local"), "TrainingRuntime", "tandem-tf"))
    assert violation in restricted_violations({**pod, **change})


@each_overlay
def test_secrets_are_named_and_never_held(resources: Resources, overlay: str) -> None:
    built = resources(overlay)
    assert not [each for each in built if each["kind"] == "Secret"]
    for pod in pod_specs(built):
        for container in pod["containers"]:
            for each in container.get("env", []):
                if re.search("PASSWORD|SECRET|ACCESS_KEY|TOKEN", each["name"]):
                    assert set(each["valueFrom"]) == {"secretKeyRef"}, each["name"]
    text = "".join(path.read_text() for path in KUBERNETES.rglob("*") if path.is_file())
    assert not re.search(r"://[^/\s\"']+:[^/\s\"'$]+@", text), "a URL with a password"


def test_the_keys_that_servers_ask_for_are_those_of_the_example(resources: Resources) -> None:
    asked = {
        each["valueFrom"]["secretKeyRef"]["key"]
        for pod in pod_specs(resources("local"))
        for container in pod["containers"]
        for each in container.get("env", [])
        if "valueFrom" in each
    }
    example = (PROJECT_ROOT / "infra" / "secrets.env.example").read_text()
    assert asked == set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))


def test_rights_are_no_wider_than_the_steps_need(resources: Resources) -> None:
    built = resources("gpu")
    assert not [each for each in built if each["kind"].startswith("Cluster")]
    rules = find(built, "Role", "tandem-steps")["rules"]
    jobs = ["create", "get", "list", "watch", "delete"]
    granted = {
        f"{group}/{resource}": rule["verbs"]
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == {
        "trainer.kubeflow.org/trainjobs": jobs,
        "kubeflow.org/pytorchjobs": jobs,
        "kubeflow.org/tfjobs": jobs,
        "/pods": ["get", "list", "watch"],
        "/pods/log": ["get"],
        "/events": ["list"],
    }
    for account in ("tandem-training", "tandem-server"):
        assert find(built, "ServiceAccount", account)["automountServiceAccountToken"] is False


@each_overlay
def test_both_frameworks_pods_differ_in_nothing_but_their_own(
    resources: Resources, overlay: str
) -> None:
    if overlay == "tpu":
        pytest.skip("the PyTorch side has no strategy for TPUs")
    built = copy.deepcopy(resources(overlay))
    tf, torch = (find(built, "TrainingRuntime", f"tandem-{name}") for name in ("tf", "torch"))
    (tf_pod, tf_node), (torch_pod, torch_node) = node(tf), node(torch)
    assert tf_node.pop("image").replace("-tf:", "-torch:") == torch_node.pop("image")
    assert tf_node.pop("command") == ["python", "-m", "pipelines.pod", "tf"]
    assert torch_node.pop("command") == ["torchrun", "-m", "torch_pipeline"]
    own = [each for each in tf_node["env"] if each["name"].startswith("TANDEM_")]
    tf_node["env"] = [each for each in tf_node["env"] if each not in own]
    assert [each["name"] for each in own] == ["TANDEM_NODES", "TANDEM_PROCESSES_PER_NODE"]
    (patience,) = [each for each in torch_node["env"] if each["name"].startswith("TORCH_ELASTIC")]
    torch_node["env"].remove(patience)
    assert patience["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    assert int(patience["value"]) == torch_pod["terminationGracePeriodSeconds"] - 5
    assert tf_node == torch_node
    assert tf_pod == torch_pod
    assert environment(tf_node).items() >= launch._ALLOCATOR.items()


def test_a_pod_that_is_asked_to_end_counts_by_how_it_ends(resources: Resources) -> None:
    for framework in ("tf", "torch"):
        runtime = find(resources("local"), "TrainingRuntime", f"tandem-{framework}")
        (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        assert replicated["template"]["spec"]["podReplacementPolicy"] == "Failed"


def test_a_gpu_is_asked_for_once_per_process(resources: Resources) -> None:
    for framework in ("tf", "torch"):
        pod, container = node(find(resources("gpu"), "TrainingRuntime", f"tandem-{framework}"))
        wanted = container["resources"]
        assert wanted["limits"]["nvidia.com/gpu"] == wanted["requests"]["nvidia.com/gpu"] == "4"
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
            "tolerations"
        ]
        if framework == "tf":  # torchrun's number is Trainer's, which counts the GPUs
            assert environment(container)["TANDEM_PROCESSES_PER_NODE"] == "4"
        assert container["image"].endswith("-cuda")


def test_a_tpu_slices_chips_are_the_product_of_its_topology(resources: Resources) -> None:
    pod, container = node(find(resources("tpu"), "TrainingRuntime", "tandem-tf"))
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert int(container["resources"]["limits"]["google.com/tpu"]) == int(rows) * int(columns)


@each_overlay
def test_images_are_of_this_version_and_from_no_registry_in_particular(
    resources: Resources, overlay: str
) -> None:
    for pod in pod_specs(resources(overlay)):
        for container in pod["containers"]:
            name, _, tag = container["image"].partition(":")
            if name.startswith("tandem-"):
                assert tag.removesuffix("-cuda") == pipelines.__version__
            assert tag not in ("", "latest")
            assert "." not in name.partition("/")[0], "a registry's host"


@each_overlay
def test_services_and_policies_select_pods_that_are_there(
    resources: Resources, overlay: str
) -> None:
    built = resources(overlay)
    labels = list(_labels_of_pods(built))
    selectors = [each["spec"]["selector"] for each in built if each["kind"] == "Service"]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"]
        for each in built
        if each["kind"] == "NetworkPolicy"
    ]
    assert len(selectors) == 8
    for selector in selectors:
        assert any(selector.items() <= each.items() for each in labels), selector


def _labels_of_pods(resource: Any) -> Iterator[dict[str, str]]:
    if isinstance(resource, list):
        for each in resource:
            yield from _labels_of_pods(each)
    elif isinstance(resource, dict):
        if "containers" in (resource.get("spec") or {}):
            yield resource["metadata"]["labels"]
        for each in resource.values():
            yield from _labels_of_pods(each)


@each_overlay
def test_no_pod_gets_a_proxy_where_a_namespace_injects_them(
    resources: Resources, overlay: str
) -> None:
    for labels in _labels_of_pods(resources(overlay)):
        assert labels["sidecar.istio.io/inject"] == "false"


def test_the_check_of_a_cluster_is_a_training_job_of_our_own_runtime(
    resources: Resources, crd_schema: Callable[[str], Resource]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    job = yaml.safe_load((KUBERNETES / "check.yaml").read_text())
    jsonschema.validate(job, crd_schema("trainjobs"))
    for overlay in OVERLAYS:
        find(resources(overlay), "TrainingRuntime", job["spec"]["runtimeRef"]["name"])


@pytest.mark.parametrize("overlay", ["local", "gpu", "tpu"])
def test_components_add_a_queue_and_move_all_to_another_namespace(
    overlay_with: Callable[[str, list[str]], list[Resource]], overlay: str
) -> None:
    built = overlay_with(overlay, COMPONENTS)

    assert find(built, "LocalQueue", "tandem")["spec"]["clusterQueue"]
    kinds = {each["kind"] for each in built}
    assert not kinds & {"Namespace", "ResourceQuota", "LimitRange"}
    assert {each["metadata"]["namespace"] for each in built} == {"kubeflow"}
    subjects = find(built, "RoleBinding", "tandem-steps")["subjects"]
    assert [(each["name"], each["namespace"]) for each in subjects] == [
        ("tandem-steps", "kubeflow"),
        ("pipeline-runner", "kubeflow"),  # of Kubeflow Pipelines for one user
        ("default-editor", "kubeflow"),  # and for several
    ]


def test_every_file_is_part_of_a_kustomization() -> None:
    for folder in [KUBERNETES / "base", *(KUBERNETES / "components").iterdir()]:
        made = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = set(made.get("resources", []))
        for each in made.get("configMapGenerator", []):
            named |= set(each["files"])
        assert named == {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
