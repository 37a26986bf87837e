"""The Kubernetes manifests: Kubernetes' own schemas, kustomize, and what a pod must be for the agent."""

import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

import tools
from deploy_files import KUBERNETES, manifests, named, pod
from servesync.runtime.claim import GRACE_SECONDS
from settings_texts import load

KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
BUILT = [folder for folder in KUSTOMIZATIONS if "components" not in folder.parts]
VERSIONS = ("1.29", "1.33")
GIB = 1 << 30
MOST_OF_A_VOLUME = 0.95
"""How much of a volume's limit its versions may take up; the rest is for blocks, folders and records."""


def build(folder: Path) -> dict[str, Any]:
    """Return what kustomize makes of a folder, by kind."""
    tool = tools.find("kustomize", "kubectl")
    done = tools.run(tool, "build" if tool.endswith("kustomize") else "kustomize", folder)
    assert done.returncode == 0, done.stderr
    return {manifest["kind"]: manifest for manifest in manifests(done.stdout)}


def allowed_to(policy: dict[str, Any], *, port: int, address: str = "", namespace: str = "") -> bool:
    """Tell whether a NetworkPolicy lets a pod reach an address, or a pod of a namespace, on a TCP port."""
    for rule in policy["spec"]["egress"]:
        if port not in [item["port"] for item in rule["ports"] if item.get("protocol", "TCP") == "TCP"]:
            continue
        for peer in rule["to"]:
            labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
            if namespace and labels == {"kubernetes.io/metadata.name": namespace}:
                return True
            if address and "ipBlock" in peer and in_block(address, peer["ipBlock"]):
                return True
    return False


def in_block(address: str, block: dict[str, Any]) -> bool:
    """Tell whether an address is in an ipBlock and in none of its exceptions."""
    place = ip_address(address)
    return place in ip_network(block["cidr"]) and not any(
        place in ip_network(part) for part in block.get("except", [])
    )


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
    built = build(folder)

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


def test_a_stop_drains_first_and_has_the_time_for_it() -> None:
    """Both hooks, then the end of the agent, within the pod's grace period."""
    (agent,) = pod()["initContainers"]
    command = agent["lifecycle"]["preStop"]["exec"]["command"]
    seconds = {name: int(number) for name, number in re.findall(r"--(\w+)=(\d+)", " ".join(command))}

    assert command[:2] == ["servesync", "drain"]
    assert set(seconds) == {"notice", "timeout"}
    assert sum(seconds.values()) + GRACE_SECONDS < pod()["terminationGracePeriodSeconds"]
    assert pod()["shareProcessNamespace"]  # or the server's hook would not see that one


def test_the_servers_hook_waits_for_the_agents() -> None:
    """By the process that it runs, which may be another user's; without one it is over at once."""
    hook = pod()["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    quick = [word.replace("sleep 5;", "sleep 0.1;") for word in hook]
    program = [sys.executable, "-c", "import sys; sys.stdin.read()", "drain", "--notice=5"]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as draining, subprocess.Popen(quick) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        draining.communicate(b"")

        assert waiting.wait(60) == 0


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
    size = volume["emptyDir"]["sizeLimit"]
    room = int(size.removesuffix("Gi")) * GIB * MOST_OF_A_VOLUME
    for path in KUBERNETES.rglob("servesync.yaml"):
        settings = load(path.read_text(), tmp_path)
        wanted = sum(model.versions.latest or 0 for model in settings.models)
        versions = wanted + len(settings.models) * (settings.reserve.keep + 2)  # staged, and being removed
        assert room >= settings.limits.max_unpacked_bytes * versions, path
    # and the node has that room: the scheduler counts requests, not volumes
    assert pod()["initContainers"][0]["resources"]["requests"]["ephemeral-storage"] == size
    assert all("ephemeral-storage" in item["resources"]["requests"] for item in pod()["containers"])


def test_on_eks_the_server_gets_no_credentials() -> None:
    """The identity webhook reads the annotation from the pod, and gives the role to everybody else in it."""
    deployment = build(KUBERNETES / "overlays/eks")["Deployment"]["spec"]["template"]
    annotations = deployment["metadata"]["annotations"]

    skipped = annotations["eks.amazonaws.com/skip-containers"].split(",")
    everybody = [*deployment["spec"]["initContainers"], *deployment["spec"]["containers"]]
    assert [item["name"] for item in everybody if item["name"] not in skipped] == ["servesync"]


def test_on_minio_the_server_gets_no_keys() -> None:
    """Only the agent's container has the secret."""
    found = build(KUBERNETES / "overlays/minio")["Deployment"]["spec"]["template"]["spec"]

    assert "secretKeyRef" in str(found["initContainers"])
    assert "secretKeyRef" not in str(found["containers"])


@pytest.mark.parametrize("name", ["eks", "minio"])
def test_the_network_policy_lets_names_be_found(name: str) -> None:
    """By the cluster's DNS and by NodeLocal DNSCache, which answers on a link-local address of the node."""
    policy = build(KUBERNETES / "overlays" / name)["NetworkPolicy"]

    assert allowed_to(policy, port=53, namespace="kube-system")
    assert allowed_to(policy, port=53, address="169.254.20.10")
    udp = [
        item for rule in policy["spec"]["egress"] for item in rule["ports"] if item.get("protocol") == "UDP"
    ]
    assert udp == [{"port": 53, "protocol": "UDP"}]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("52.219.170.1", True),
        ("2a05:d050:8020::1", True),
        ("169.254.169.254", False),
        ("169.254.20.10", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
    ],
)
def test_on_eks_https_leads_out_but_not_to_metadata(address: str, expected: bool) -> None:  # noqa: FBT001
    """With addresses of both kinds; the addresses of instance metadata stay shut."""
    policy = build(KUBERNETES / "overlays/eks")["NetworkPolicy"]

    assert allowed_to(policy, port=443, address=address) == expected
    assert not allowed_to(policy, port=80, address=address)


def test_the_minio_overlay_reaches_its_store_and_nothing_else() -> None:
    """The namespace of `endpoint_url`, on the port of MinIO's pods: a policy does not see the Service's."""
    built = build(KUBERNETES / "overlays/minio")
    settings = yaml.safe_load(built["ConfigMap"]["data"]["servesync.yaml"])
    namespace = settings["store"]["endpoint_url"].split(".")[1]

    assert allowed_to(built["NetworkPolicy"], port=9000, namespace=namespace)
    assert not allowed_to(built["NetworkPolicy"], port=443, address="52.219.170.1")
