"""The deployment files: manifests, Compose, images, Prometheus; and what in them does not exist.

A name in one file that nothing has (a flag, a variable, a port, a label, a metric) makes no error
where it is written: a pod does not start, or an alert is silent. `find_problems` looks for these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import click
import mnist37_client.cli.run  # noqa: F401 - it adds the commands to the group
import yaml
from mnist37_client.cli.group import commands
from mnist37_front.command import front
from mnist37_server.command_line import main as serve
from mnist37_web.access.boundary import OPEN_PATHS
from mnist37_web.command import main as web
from support.pages import ROOT, names, plain, table

COMPOSE, DOCKERFILE = "docker-compose.yml", "Dockerfile"
PROMETHEUS, ALERTS = "docker/prometheus.yml", "docs/alerts.yaml"
MANIFESTS = sorted(f"docs/{path.name}" for path in ROOT.glob("docs/kubernetes*.yaml"))
FILES = [*MANIFESTS, COMPOSE, DOCKERFILE, PROMETHEUS, ALERTS]
HEALTH = commands.commands["health"]
# What the images run, by the last part of their names.
COMMANDS = {"mnist37": serve, "mnist37-gpu": serve, "mnist37-front": front, "mnist37-web": web}
PATCHED = {"docs/kubernetes-gpu.yaml": "mnist37", "docs/kubernetes-front-tls.yaml": "mnist37-front"}
GRPC_PORT = 50051
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
CALLERS_LABEL = "mnist37-client"  # of pods that are not ours
PROMETHEUS_LABELS = {"job", "instance", "le"}


def flags(command: click.Command) -> set[str]:
    """Return the names of a command's options."""
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def variables(command: click.Command) -> set[str]:
    """Return the environment variables of a command's options."""
    prefix = command.context_settings.get("auto_envvar_prefix")
    return {
        str(option.envvar or f"{prefix}_{option.name}".upper())
        for option in command.params
        if isinstance(option, click.Option) and (option.envvar or option.allow_from_autoenv)
    }


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
        merged = [merge(item, by_name.pop(item["name"], {})) for item in base]
        return [*merged, *by_name.values()]
    return patch


@dataclass(frozen=True)
class Pod:
    """The pods of one Deployment, whose one container runs one of the images."""

    where: str
    deployment: Any

    @cached_property
    def spec(self) -> Any:
        return self.deployment["spec"]["template"]["spec"]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.deployment["spec"]["template"]["metadata"]["labels"]
        return labels

    @cached_property
    def container(self) -> Any:
        (container,) = self.spec["containers"]
        return container

    @property
    def command(self) -> click.Command | None:
        """The command of the image; None if there is no such image."""
        return COMMANDS.get(self.container["image"].rpartition("/")[2].partition(":")[0])

    @cached_property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @cached_property
    def arguments(self) -> dict[str, str]:
        """The arguments of the command, by flag."""
        parts = [argument.partition("=") for argument in self.container["args"]]
        return {flag: value for flag, _, value in parts}

    @property
    def probes(self) -> Iterator[Any]:
        yield from (self.container[name] for name in PROBES if name in self.container)


class Deployment:
    """The texts of all files, parsed.

    Args:
        texts: by the paths of the files.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self.dockerfile = texts[DOCKERFILE]
        self.services: Any = yaml.safe_load(texts[COMPOSE])["services"]
        self.prometheus = yaml.safe_load(texts[PROMETHEUS])
        self.alerts = yaml.safe_load(texts[ALERTS])
        self.manifests: list[tuple[str, Any]] = []
        for name in MANIFESTS:
            if name not in PATCHED:
                self.manifests += [(name, each) for each in yaml.safe_load_all(texts[name])]
        plain_ones = {
            each["metadata"]["name"]: each
            for _, each in self.manifests
            if each["kind"] == "Deployment"
        }
        self.patched = [
            (name, merge(plain_ones[target], yaml.safe_load(texts[name])))
            for name, target in PATCHED.items()
        ]
        self.pods = [
            Pod(f"{name}: {each['metadata']['name']}", each)
            for name, each in [*self.manifests, *self.patched]
            if each["kind"] == "Deployment"
        ]

    def of_kind(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Yield each manifest of a kind, with a text that says where it is."""
        for name, each in self.manifests:
            if each["kind"] == kind:
                yield f"{name}: {kind} {each['metadata']['name']}", each

    def selected(self, labels: dict[str, str]) -> list[Pod]:
        """Return the pods that have these labels."""
        return [pod for pod in self.pods if labels.items() <= pod.labels.items()]

    def service_ports(self) -> set[str]:
        """Return NAME:PORT of each Service."""
        return {
            f"{each['metadata']['name']}:{port['port']}"
            for _, each in self.of_kind("Service")
            for port in each["spec"]["ports"]
        }


def find_problems(texts: dict[str, str]) -> list[str]:
    """Return a line for each name in the files that nothing has."""
    all_files = Deployment(texts)
    return [
        *(problem for pod in all_files.pods for problem in of_pod(pod, all_files)),
        *of_selectors(all_files),
        *of_scalers(all_files),
        *of_compose(all_files),
        *of_prometheus(all_files),
    ]


def of_pod(pod: Pod, all_files: Deployment) -> Iterator[str]:
    """Yield the problems of a pod: flags, variables, ports, probes, files and addresses."""
    if pod.command is None:
        yield f"{pod.where}: no image {pod.container['image']}"
        return
    environment = {each["name"]: each.get("value", "") for each in pod.container.get("env", [])}
    known = variables(pod.command) | variables(HEALTH)
    for name in environment:
        if name.startswith("MNIST37_") and name not in known:
            yield f"{pod.where}: no variable {name}"
    for flag in pod.arguments.keys() - flags(pod.command):
        yield f"{pod.where}: no flag {flag}"
    for value in pod.arguments.values():
        for name in re.findall(r"\$\((\w+)\)", value):
            if name not in environment:
                yield f"{pod.where}: no variable {name} in the pod"
    listening = {GRPC_PORT} | {
        int(pod.arguments[flag].rpartition(":")[2])
        for flag in ("--address", "--metrics-address")
        if flag in pod.arguments
    }
    for port in set(pod.ports.values()) - listening:
        yield f"{pod.where}: nothing listens on {port}"
    for flag in ("--owner", "--follow", "--server"):
        address = pod.arguments.get(flag)
        if address is not None and address not in all_files.service_ports():
            yield f"{pod.where}: no Service {address}"
    annotations = pod.deployment["spec"]["template"]["metadata"].get("annotations", {})
    annotated = annotations.get("prometheus.io/port")
    if annotated is not None and int(annotated) != pod.ports.get("metrics"):
        yield f"{pod.where}: no metrics on {annotated}"
    probed: list[str] = []
    for probe in pod.probes:
        yield from of_probe(pod, probe)
        probed += probe.get("exec", {}).get("command", [])
    values = [*pod.arguments.values(), *environment.values()]
    values += [argument.partition("=")[2] for argument in probed]
    yield from of_files(pod, {PurePosixPath(value) for value in values if value.startswith("/")})


def of_probe(pod: Pod, probe: Any) -> Iterator[str]:
    """Yield the problems of a probe: what it runs or asks, and where."""
    if "exec" in probe:
        program, command, *options = probe["exec"]["command"]
        if (program, command) != ("mnist37", HEALTH.name):
            yield f"{pod.where}: no probe {program} {command}"
        for option in options:
            if option.partition("=")[0] not in flags(HEALTH):
                yield f"{pod.where}: the probe has no flag {option}"
            if option.startswith("--address=") and not option.endswith(f":{pod.ports['grpc']}"):
                yield f"{pod.where}: the probe asks {option}"
    else:
        asked = probe["httpGet"]
        paths = {"metrics": {"/metrics"}, "https": OPEN_PATHS}
        if asked["port"] not in pod.ports:
            yield f"{pod.where}: the probe asks port {asked['port']}"
        if asked["path"] not in paths.get(asked["port"], ()):
            yield f"{pod.where}: the probe asks for {asked['path']}"


def of_files(pod: Pod, files: set[PurePosixPath]) -> Iterator[str]:
    """Yield the files that no volume of a pod has."""
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    folders = {}
    for mount in pod.container["volumeMounts"]:
        if mount["name"] not in volumes:
            yield f"{pod.where}: no volume {mount['name']}"
        else:
            folders[PurePosixPath(mount["mountPath"])] = volumes[mount["name"]]
    for file in files:
        if file.parent not in folders:
            yield f"{pod.where}: no volume for {file}"
            continue
        items = folders[file.parent].get("secret", {}).get("items")
        if items is not None and file.name not in {item["path"] for item in items}:
            yield f"{pod.where}: {file} is not in its Secret"


def of_selectors(all_files: Deployment) -> Iterator[str]:
    """Yield the problems of what selects pods: no such pods, or no such port."""
    for where, each in all_files.of_kind("Service"):
        selector = each["spec"]["selector"]
        yield from of_ports(where, all_files.selected(selector), selector, each["spec"]["ports"])
    for where, each in all_files.of_kind("PodDisruptionBudget"):
        selector = each["spec"]["selector"]["matchLabels"]
        yield from of_ports(where, all_files.selected(selector), selector, [])
    for where, each in all_files.of_kind("NetworkPolicy"):
        selector = each["spec"]["podSelector"]["matchLabels"]
        pods = all_files.selected(selector)
        for rule in each["spec"]["ingress"]:
            yield from of_ports(where, pods, selector, rule["ports"])
            for source in rule.get("from", []):
                labels = source["podSelector"].get("matchLabels", {})
                is_ours = "namespaceSelector" not in source and CALLERS_LABEL not in labels
                if is_ours and labels and not all_files.selected(labels):
                    yield f"{where}: no pods {labels}"
    for pod in all_files.pods:
        selectors = [pod.deployment["spec"]["selector"]]
        spread = pod.spec.get("topologySpreadConstraints", [])
        selectors += [constraint["labelSelector"] for constraint in spread]
        for selector in selectors:
            if pod not in all_files.selected(selector["matchLabels"]):
                yield f"{pod.where}: it does not select its own pods: {selector}"


def of_scalers(all_files: Deployment) -> Iterator[str]:
    """Yield the problems of what scales: nothing to scale, or nothing to scale by."""
    for where, each in all_files.of_kind("HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]["name"]
        pods = [pod for pod in all_files.pods if pod.deployment["metadata"]["name"] == target]
        if not pods:
            yield f"{where}: no Deployment {target}"
        for metric in each["spec"]["metrics"]:
            for pod in pods:
                if metric["resource"]["name"] not in pod.container["resources"]["requests"]:
                    yield f"{where}: {pod.where} requests no {metric['resource']['name']}"


def of_ports(where: str, pods: list[Pod], selector: Any, ports: list[Any]) -> Iterator[str]:
    """Yield the ports that one of the selected pods does not have."""
    if not pods:
        yield f"{where}: no pods {selector}"
    for port in ports:
        name = port.get("targetPort", port["port"])
        for pod in pods:
            if name not in pod.ports:
                yield f"{where}: {pod.where} has no port {name}"


def of_compose(all_files: Deployment) -> Iterator[str]:
    """Yield the problems of Compose and the images: variables, services and ports."""
    callers = set().union(*(variables(command) for command in commands.commands.values()))
    every = set().union(callers, *(variables(command) for command in COMMANDS.values()))
    for name in set(re.findall(r"\bMNIST37_\w+", all_files.dockerfile)) - every:
        yield f"{DOCKERFILE}: no variable {name}"
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", all_files.dockerfile, re.MULTILINE))
    for name, service in all_files.services.items():
        environment = service.get("environment", {})
        command = COMMANDS.get(service["image"])
        known = callers if command is None else variables(command) | variables(HEALTH)
        if name != "tests":  # it has variables of its own
            for variable in environment.keys() - known:
                yield f"{COMPOSE}: {name}: no variable {variable}"
        if "build" in service and service["build"]["target"] not in targets:
            yield f"{COMPOSE}: {name}: no target {service['build']['target']}"
        texts = [*map(str, environment.values()), str(service.get("command", ""))]
        for host, port in re.findall(r"\b([a-z][a-z-]*):(\d+)", " ".join(texts)):
            if host not in all_files.services or int(port) not in (GRPC_PORT, 9100):
                yield f"{COMPOSE}: {name}: nothing is at {host}:{port}"


def of_prometheus(all_files: Deployment) -> Iterator[str]:
    """Yield the problems of Prometheus' files: targets, metrics and labels."""
    (scrape,) = all_files.prometheus["scrape_configs"]
    hosts = [each.partition(":")[0] for each in scrape["static_configs"][0]["targets"]]
    for host in [*hosts, *scrape["dns_sd_configs"][0]["names"]]:
        if host not in all_files.services:
            yield f"{PROMETHEUS}: no service {host}"
    mounts = [mount.split(":")[:2] for mount in all_files.services["prometheus"]["volumes"]]
    for file in all_files.prometheus["rule_files"]:
        if [f"./docs/{file}", f"/etc/prometheus/{file}"] not in mounts:
            yield f"{PROMETHEUS}: {file} is not mounted"
    labels = labels_by_metric() | {"up": set()}
    for group in all_files.alerts["groups"]:
        for rule in group["rules"]:
            where = f"{ALERTS}: {rule['alert']}"
            found = re.findall(r"\b(mnist37_\w+|grpc_\w+_\w+_\w+|process_\w+|up)\b", rule["expr"])
            if not found:
                yield f"{where}: no metric"
            for metric in found:
                if metric not in labels:
                    yield f"{where}: no metric {metric}"
            known = PROMETHEUS_LABELS.union(*(labels.get(metric, ()) for metric in found))
            for label in re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", rule["expr"]):
                if label not in known:
                    yield f"{where}: no label {label}"


def labels_by_metric() -> dict[str, set[str]]:
    """Return the labels of each metric; test_reference.py compares these tables with servers."""
    found = {}
    page = "docs/reference/metrics.md"
    rows = [*table(page, "metric", "type", "labels"), *table(page, "metric of a follower")]
    for row in rows:
        metric = plain(row.get("metric") or row["metric of a follower"])
        suffixes = ("_bucket", "_sum", "_count") if row["type"] == "histogram" else ("",)
        for suffix in suffixes:
            found[metric + suffix] = set(names(row.get("labels", "")))
    return found
