"""Tests of the deployment files: they fit Kubernetes' schemas and agree with each other."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import yaml
from mnist37_server.command_line import main
from mnist37_web.access.boundary import OPEN_PATHS
from mnist37_web.command import main as web

ROOT = Path(__file__).parents[2]
MANIFESTS = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text()))
GPU = yaml.safe_load((ROOT / "docs" / "kubernetes-gpu.yaml").read_text())
WEB = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes-web.yaml").read_text()))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {f"MNIST37_{option.name}".upper() for option in main.params}
FLAGS = {name for option in main.params for name in option.opts}


def merge(base: Any, patch: Any) -> Any:
    """Return a manifest with a patch, as `kubectl patch` merges them.

    Maps are merged by key, and lists of named objects by name.
    """
    if isinstance(base, dict):
        return {
            **base,
            **{k: merge(base[k], v) if k in base else v for k, v in patch.items()},
        }
    if isinstance(base, list):
        by_name = {item["name"]: item for item in patch}
        return [merge(item, by_name.get(item["name"], {})) for item in base]
    return patch


def deployment() -> Any:
    (manifest,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
    return copy.deepcopy(manifest)


def test_kubernetes_accepts_each_manifest() -> None:
    latest = kubernetes_validate.latest_version()
    for manifest in [*MANIFESTS, *WEB, merge(deployment(), GPU)]:
        kubernetes_validate.validate(manifest, latest, strict=True)


def test_the_gpu_is_added_and_nothing_lost() -> None:
    (server,) = merge(deployment(), GPU)["spec"]["template"]["spec"]["containers"]
    assert server["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert server["volumeMounts"]


def test_there_is_one_replica_and_the_old_one_ends_first() -> None:
    spec = deployment()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_deployment_files_use_existing_flags_and_variables() -> None:
    (server,) = deployment()["spec"]["template"]["spec"]["containers"]
    assert {argument.split("=")[0] for argument in server["args"]} <= FLAGS
    used = set(re.findall(r"MNIST37_(?!WEB_)\w+", DOCKERFILE))
    for service in ("server", "server-gpu"):
        used |= set(COMPOSE["services"][service]["environment"])
    assert used <= VARIABLES


def test_the_page_is_deployed_with_existing_flags_variables_and_routes() -> None:
    (container,) = WEB[0]["spec"]["template"]["spec"]["containers"]
    flags = {argument.split("=")[0] for argument in container["args"]}
    assert flags <= {name for option in web.params for name in option.opts}
    used = set(re.findall(r"MNIST37_WEB_\w+", DOCKERFILE))
    used |= set(COMPOSE["services"]["web"]["environment"])
    assert used <= {option.envvar for option in web.params if isinstance(option, click.Option)}
    probes = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert probes == OPEN_PATHS
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = {value for argument in container["args"] if "/" in (value := argument.split("=")[1])}
    assert {str(Path(file).parent) for file in files} <= mounted


def test_the_images_are_built_with_every_package_of_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    folders = {package.split("/")[0] for package in wheel["targets"]["wheel"]["packages"]}
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert folders <= sent


def test_the_deployments_user_is_the_images() -> None:
    user = deployment()["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert set(re.findall(r"^USER (?!root)(\S+)", DOCKERFILE, re.MULTILINE)) == {f"{user}:{user}"}
