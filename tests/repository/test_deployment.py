"""What is there to be deployed: Kubernetes' schemas, and that all of it says the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from mnist37_server.__main__ import main

ROOT = Path(__file__).parents[2]
MANIFESTS = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text()))
GPU = yaml.safe_load((ROOT / "docs" / "kubernetes-gpu.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {f"MNIST37_{option.name}".upper() for option in main.params}
FLAGS = {name for option in main.params for name in option.opts}


def merged(base: Any, patch: Any) -> Any:
    """As kubectl merges: maps key by key, lists of named things by name."""
    if isinstance(base, dict):
        return {
            **base,
            **{k: merged(base[k], v) if k in base else v for k, v in patch.items()},
        }
    if isinstance(base, list):
        by_name = {thing["name"]: thing for thing in patch}
        return [merged(thing, by_name.get(thing["name"], {})) for thing in base]
    return patch


def deployment() -> Any:
    (found,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
    return copy.deepcopy(found)


def test_kubernetes_takes_each_manifest() -> None:
    latest = kubernetes_validate.latest_version()
    for manifest in [*MANIFESTS, merged(deployment(), GPU)]:
        kubernetes_validate.validate(manifest, latest, strict=True)


def test_the_gpu_is_added_and_nothing_lost() -> None:
    (server,) = merged(deployment(), GPU)["spec"]["template"]["spec"]["containers"]
    assert server["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert server["volumeMounts"]


def test_there_is_one_writer_and_the_old_one_goes_first() -> None:
    spec = deployment()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_what_is_deployed_is_told_in_flags_that_there_are() -> None:
    (server,) = deployment()["spec"]["template"]["spec"]["containers"]
    assert {argument.split("=")[0] for argument in server["args"]} <= FLAGS
    told = set(re.findall(r"MNIST37_\w+", DOCKERFILE))
    for service in ("server", "server-gpu"):
        told |= set(COMPOSE["services"][service]["environment"])
    assert told <= VARIABLES


def test_the_user_is_the_image_s() -> None:
    user = deployment()["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert set(re.findall(r"^USER (?!root)(\S+)", DOCKERFILE, re.MULTILINE)) == {f"{user}:{user}"}
