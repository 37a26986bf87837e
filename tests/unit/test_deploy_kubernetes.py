"""The Kubernetes manifests: Kubernetes' own schemas, kustomize, and what a pod must be for the agent."""

from pathlib import Path

import pytest
import yaml

import tools
from deploy_files import KUBERNETES, manifests, named, pod
from settings_texts import load

KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
BUILT = [folder for folder in KUSTOMIZATIONS if "components" not in folder.parts]
VERSIONS = ("1.30", "1.33")
GIB = 1 << 30


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=named)
def test_what_a_kustomization_names_is_there(folder: Path) -> None:
    """Resources, components, patches and generated files."""
    found = yaml.safe_load((folder / "kustomization.yaml").read_text())
    names = [*found.get("resources", []), *found.get("components", [])]
    names += [patch["path"] for patch in found.get("patches", []) if "path" in patch]
    names += [name for maker in found.get("configMapGenerator", []) for name in maker["files"]]

    assert [name for name in names if not (folder / name).exists()] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "path", sorted(set(KUBERNETES.rglob("*.yaml")) - set(KUBERNETES.glob("overlays/*/*"))), ids=named
)
def test_manifests_match_the_schemas(path: Path, version: str) -> None:
    """Strictly: a key that Kubernetes does not know is an error."""
    check = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here")
    for manifest in manifests(path.read_text()):
        if "kind" in manifest and manifest["kind"] not in {"Kustomization", "Component"}:
            check.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", BUILT, ids=named)
def test_kustomize_builds_what_matches_the_schemas(folder: Path, tmp_path: Path) -> None:
    """The base and each overlay; settings in the built ConfigMap load, and every object has its place."""
    tool = tools.find("kustomize", "kubectl")
    done = tools.run(tool, "build" if tool.endswith("kustomize") else "kustomize", folder)
    assert done.returncode == 0, done.stderr
    built = {manifest["kind"]: manifest for manifest in manifests(done.stdout)}

    load(built["ConfigMap"]["data"]["servesync.yaml"], tmp_path)
    template = built["Deployment"]["spec"]["template"]
    volume = next(item for item in template["spec"]["volumes"] if item["name"] == "settings")
    assert volume["configMap"]["name"] == built["ConfigMap"]["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == built["ServiceAccount"]["metadata"]["name"]
    check = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here")
    for manifest in built.values():
        for version in VERSIONS:
            check.validate(manifest, version, strict=True)


def test_every_selector_finds_the_pods() -> None:
    """A budget or a policy without a selector that fits protects nothing, without a word."""
    read = {
        path.stem: yaml.safe_load(path.read_text())
        for path in [*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("components/*/*.yaml")]
    }
    labels = read["deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        read["deployment"]["spec"]["selector"]["matchLabels"],
        read["poddisruptionbudget"]["spec"]["selector"]["matchLabels"],
        read["service"]["spec"]["selector"],
        read["networkpolicy"]["spec"]["podSelector"]["matchLabels"],
        pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_the_agent_is_a_sidecar_that_starts_first() -> None:
    """Its startup probe holds back the server; each probe asks the endpoint that means it."""
    (agent,) = pod()["initContainers"]

    assert agent["restartPolicy"] == "Always"
    probes = {name: agent[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/startupz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    ports = {port["name"]: port["containerPort"] for port in agent["ports"]}
    assert all(ports[probe["port"]] == 9494 for probe in probes.values())
    assert not any("subPath" in mount for mount in agent["volumeMounts"])


def test_the_pod_is_restricted() -> None:
    """Kubernetes' profile `restricted`, and more: read-only roots, two users, a server that cannot write."""
    found = pod()
    shared = found["securityContext"]
    assert (shared["runAsNonRoot"], shared["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    containers = [*found["initContainers"], *found["containers"]]
    for container in containers:
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert {"memory"} <= set(container["resources"]["limits"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert len({container["securityContext"]["runAsUser"] for container in containers}) == 2
    (mount,) = [item for item in found["containers"][0]["volumeMounts"] if item["name"] == "models"]
    assert mount["readOnly"] is True
    assert (found["enableServiceLinks"], found["automountServiceAccountToken"]) == (False, False)


def test_the_volume_holds_what_the_settings_allow(tmp_path: Path) -> None:
    """The kubelet evicts a pod whose volume is too full, and the server with it."""
    (volume,) = [item for item in pod()["volumes"] if item["name"] == "models"]
    room = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * GIB
    for path in KUBERNETES.rglob("servesync.yaml"):
        settings = load(path.read_text(), tmp_path)
        wanted = sum(model.versions.latest or 0 for model in settings.models)
        versions = wanted + len(settings.models) * (settings.reserve.keep + 2)  # staged, and being removed
        assert room >= settings.limits.max_unpacked_bytes * versions, path
