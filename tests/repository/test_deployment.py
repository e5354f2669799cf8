"""Tests of the deployment files: they fit Kubernetes' schemas, the code, and each other."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml
from mnist37_server.config import Config
from support.deployment import (
    ALERTS,
    COMPOSE,
    DOCKERFILE,
    FILES,
    PATCHED,
    PROMETHEUS,
    Deployment,
    find_problems,
)
from support.pages import ROOT

TEXTS = {name: (ROOT / name).read_text() for name in FILES}
ALL = Deployment(TEXTS)
READERS = {"mnist37-front", "mnist37-follower"}
FRONT, FOLLOWER = "docs/kubernetes-front.yaml", "docs/kubernetes-follower.yaml"
SERVER, NETWORK = "docs/kubernetes.yaml", "docs/kubernetes-network.yaml"
WEB = "docs/kubernetes-web.yaml"

# A mistake of each kind: the file, what is in it, and what could be in its place.
MISTAKES = [
    (SERVER, "--tls-cert=", "--tls-certificate="),
    (FRONT, "--owner-token-file=", "--token-file="),
    (FOLLOWER, "--follow-tls-ca=", "--owner-tls-ca="),
    (WEB, "--https-key=", "--tls-key-file="),
    (FOLLOWER, "name: MNIST37_STATE", "name: MNIST37_STATES"),
    (FOLLOWER, "- name: POD_IP", "- name: POD"),
    ("docs/kubernetes-front-tls.yaml", "MNIST37_FRONT_CLIENT_CA", "MNIST37_FRONT_CALLERS_CA"),
    ("docs/kubernetes-front-tls.yaml", "mnist37-clients/ca.crt", "clients/ca.crt"),
    ("docs/kubernetes-gpu.yaml", "MNIST37_DEVICE", "MNIST37_GPU"),
    (FRONT, "image: registry.example.com/mnist37-front", "image: registry.example.com/mnist37-f"),
    (FRONT, "--owner=mnist37:50051", "--owner=mnist37-server:50051"),
    (FOLLOWER, "--follow=mnist37:50051", "--follow=mnist37:50052"),
    (FRONT, "name: metrics, containerPort: 9100", "name: metrics, containerPort: 9101"),
    (SERVER, 'prometheus.io/port: "9100"', 'prometheus.io/port: "9000"'),
    (FRONT, "targetPort: grpc", "targetPort: http"),
    (NETWORK, "port: metrics", "port: prometheus"),
    (FRONT, "path: /metrics, port: metrics", "path: /healthz, port: metrics"),
    (FRONT, "path: /metrics, port: metrics", "path: /metrics, port: admin"),
    (WEB, "path: /v2/health/live", "path: /health"),
    (FOLLOWER, "- health\n", "- check\n"),
    (FOLLOWER, "- --address=127.0.0.1:50051", "- --address=127.0.0.1:50061"),
    (SERVER, "- --tls-server-name=mnist37", "- --server-name=mnist37"),
    (FRONT, "mountPath: /etc/mnist37, ", "mountPath: /etc/server, "),
    (FOLLOWER, "{key: tokens, path: tokens}", "{key: tokens, path: token}"),
    (FRONT, "{name: compiled, mountPath", "{name: cache, mountPath"),
    (FRONT, "kind: Deployment, name: mnist37-front", "kind: Deployment, name: mnist37-fronts"),
    (FOLLOWER, "name: cpu\n", "name: qps\n"),
    (FOLLOWER, "requests: {cpu: 500m, ", "requests: {"),
    (FOLLOWER, "labelSelector: &pods\n            matchLabels: {app.kubernetes.io/name: mnist37-",
     "labelSelector: &pods\n            matchLabels: {app.kubernetes.io/name: mnist-"),
    (NETWORK, "podSelector: {matchLabels: {app.kubernetes.io/name: mnist37-front}}",
     "podSelector: {matchLabels: {app.kubernetes.io/name: front}}"),
    (NETWORK, "podSelector:\n    matchLabels: {app.kubernetes.io/name: mnist37-follower}",
     "podSelector:\n    matchLabels: {app.kubernetes.io/name: follower}"),
    (COMPOSE, "MNIST37_FRONT_OWNER:", "MNIST37_OWNER:"),
    (COMPOSE, "MNIST37_FOLLOW: server:50051", "MNIST37_FOLLOW: owner:50051"),
    (COMPOSE, "dns:///follower:50051", "dns:///follower:50061"),
    (COMPOSE, "target: front", "target: envoy"),
    (DOCKERFILE, "MNIST37_FRONT_ADDRESS", "MNIST37_FRONT_LISTEN"),
    (PROMETHEUS, "names: [follower", "names: [followers"),
    (PROMETHEUS, "rule_files: [alerts.yaml]", "rule_files: [rules.yaml]"),
    (ALERTS, "mnist37_follower_resets_total", "mnist37_resets_total"),
    (ALERTS, "mnist37_follower_age_seconds >", "mnist37_age_seconds >"),
    (ALERTS, "grpc_code=~", "code=~"),
]  # fmt: skip


def manifest(name: str, kind: str, number: int = 0) -> Any:
    found = [each for each in yaml.safe_load_all(TEXTS[name]) if each["kind"] == kind]
    return found[number]


def test_kubernetes_accepts_each_manifest() -> None:
    latest = kubernetes_validate.latest_version()
    assert {name for name, _ in [*ALL.manifests, *ALL.patched]} == {
        name for name in FILES if "kubernetes" in name
    }
    for _, each in [*ALL.manifests, *ALL.patched]:
        kubernetes_validate.validate(each, latest, strict=True)


def test_the_deployment_files_name_nothing_that_does_not_exist() -> None:
    assert find_problems(TEXTS) == []


@pytest.mark.parametrize(("name", "old", "new"), MISTAKES, ids=[new for *_, new in MISTAKES])
def test_a_mistake_in_a_deployment_file_is_found(name: str, old: str, new: str) -> None:
    assert old in TEXTS[name]
    assert find_problems({**TEXTS, name: TEXTS[name].replace(old, new)})


def test_a_patch_adds_and_loses_nothing() -> None:
    for name, patched in ALL.patched:
        (container,) = patched["spec"]["template"]["spec"]["containers"]
        assert container["args"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
    (gpu, client_ca) = (patched["spec"]["template"]["spec"] for _, patched in ALL.patched)
    assert gpu["containers"][0]["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert {volume["name"] for volume in client_ca["volumes"]} > {"clients", "access", "server"}
    assert len(PATCHED) == 2


def test_there_is_one_owner_and_the_old_one_ends_first() -> None:
    spec = manifest(SERVER, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("name", [FRONT, FOLLOWER])
def test_readers_are_replaced_without_a_gap(name: str) -> None:
    spec = manifest(name, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (_, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    grace = int(seconds) + Config().shutdown_grace
    assert grace + 5 <= pod["terminationGracePeriodSeconds"]
    budget = manifest(name, "PodDisruptionBudget")["spec"]
    scaler = manifest(name, "HorizontalPodAutoscaler")["spec"]
    assert 0 < budget["maxUnavailable"] < scaler["minReplicas"]
    topologies = {each["topologyKey"] for each in pod["topologySpreadConstraints"]}
    assert topologies == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    headless = [
        each for _, each in ALL.of_kind("Service") if each["spec"].get("clusterIP") == "None"
    ]
    assert spec["selector"]["matchLabels"] in [each["spec"]["selector"] for each in headless]


def test_the_owner_has_room_for_every_follower() -> None:
    scalers = [each["spec"]["maxReplicas"] for _, each in ALL.of_kind("HorizontalPodAutoscaler")]
    assert len(scalers) == 2
    assert sum(scalers) + len(scalers) <= Config().max_followers  # with the surge of an update


def reach(policy: Any, labels: dict[str, str], namespace: str, port: str) -> bool:
    """Return whether a pod with these labels reaches a port by a policy."""
    for rule in policy["spec"]["ingress"]:
        if port not in {each["port"] for each in rule["ports"]}:
            continue
        if "from" not in rule:
            return True
        for source in rule["from"]:
            spaces = source.get("namespaceSelector", {}).get("matchLabels", {})
            here = spaces.get("kubernetes.io/metadata.name", "default")
            selector = source["podSelector"]
            fits = selector.get("matchLabels", {}).items() <= labels.items() and all(
                labels.get(each["key"]) in each["values"]
                for each in selector.get("matchExpressions", [])
            )
            if here == namespace and fits:
                return True
    return False


def test_the_network_lets_through_whom_the_page_says() -> None:
    policies = {each["metadata"]["name"]: each for _, each in ALL.of_kind("NetworkPolicy")}
    assert set(policies) == {"mnist37", *READERS}
    callers = {
        "stranger": {},
        "read": {"mnist37-client": "read"},
        "full": {"mnist37-client": "full"},
        **{name: {"app.kubernetes.io/name": name} for name in READERS},
    }
    reached = {
        name: {
            caller for caller, labels in callers.items() if reach(each, labels, "default", "grpc")
        }
        for name, each in policies.items()
    }
    assert reached == {
        "mnist37": {"full", *READERS},
        "mnist37-follower": {"read", "full"},
        "mnist37-front": set(callers),
    }
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    for each in policies.values():
        assert reach(each, prometheus, "monitoring", "metrics")
        assert not reach(each, prometheus, "default", "metrics")
        assert not any(reach(each, labels, "default", "metrics") for labels in callers.values())
        assert each["spec"]["policyTypes"] == ["Ingress"]


def test_only_the_front_is_published_in_compose() -> None:
    published = {
        name
        for name, service in ALL.services.items()
        if "ports" in service and "profiles" not in service
    }
    assert published == {"front"}


def test_an_image_of_a_follower_must_forget_the_state() -> None:
    # The image sets MNIST37_STATE, and `mnist37 serve --follow` refuses it unless it is empty.
    assert re.search(r"MNIST37_STATE=\S", TEXTS[DOCKERFILE])
    assert ALL.services["follower"]["environment"]["MNIST37_STATE"] == ""
    (container,) = manifest(FOLLOWER, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "MNIST37_STATE", "value": ""} in container["env"]


def test_the_images_are_built_with_every_package_of_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    folders = {package.split("/")[0] for package in wheel["targets"]["wheel"]["packages"]}
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert folders <= sent


def test_the_deployments_user_is_the_images() -> None:
    users = {pod.spec["securityContext"]["runAsUser"] for pod in ALL.pods}
    (user,) = users
    image_users = set(re.findall(r"^USER (?!root)(\S+)", TEXTS[DOCKERFILE], re.MULTILINE))
    assert image_users == {f"{user}:{user}"}
