"""Tests of the tables in docs/reference: they agree with the code, row by row."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import grpc
import mnist37_client
import mnist37_client.cli.run as cli
import pytest
from click.testing import CliRunner
from mnist37_client import AsyncClient, Client, errors, validation_images
from mnist37_client._rpc.failures import status as client_status
from mnist37_client.cli.group import commands
from mnist37_client.local_server import LocalServer
from mnist37_cluster.command import cluster
from mnist37_front.command import front
from mnist37_front.envoy.routes import OVERLOADED, RETRY_SECONDS
from mnist37_front.serve_command import serve as fronted_serve
from mnist37_server.access.roles import REQUIRED_ROLES
from mnist37_server.command_line import main as serve
from mnist37_server.errors import Reason
from mnist37_server.rpc import status
from mnist37_server.services import open_inference, tensors
from mnist37_web.command import main as web
from prometheus_client.parser import text_string_to_metric_families
from support.pages import ROOT, names, plain, table
from support.scraping import Scrape

CONTEXT = click.Context(click.Command("any"))
FLAGS, ERRORS = "docs/reference/flags.md", "docs/reference/errors.md"
ACCESS, CLIENT = "docs/reference/access.md", "docs/reference/client.md"
COMMAND_LINE, METRICS = "docs/reference/command-line.md", "docs/reference/metrics.md"
PROTOCOLS = "docs/reference/protocols.md"


def options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def default(option: click.Option) -> str:
    """Return an option's default as the pages print it."""
    if in_help := re.search(r"\[default: (.+)\]", option.help or ""):
        return in_help[1]
    value = option.get_default(CONTEXT)
    if option.is_flag:
        return "on" if value is True else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) and value != "" else "none"


@pytest.mark.parametrize("command", [commands, serve, fronted_serve, front, web, cluster])
def test_each_command_has_a_short_flag_for_its_help(command: click.Command) -> None:
    words: list[list[str]] = [[]]
    if isinstance(command, click.Group):
        # The others hand their options on to one of these.
        words += [[name] for name, each in command.commands.items() if each.add_help_option]
    for start in words:
        shown = CliRunner().invoke(command, [*start, "-h"])
        assert shown.exit_code == 0, shown.output
        assert "-h, --help" in shown.output


def test_the_flags_of_serve() -> None:
    prefix = serve.context_settings["auto_envvar_prefix"]
    assert [
        (plain(row["flag"]), row["environment"], row["default"])
        for row in table(FLAGS, "flag", "environment", "default", "meaning")
    ] == [
        (
            option.opts[0],
            f"{prefix}_{option.name}".upper() if option.allow_from_autoenv else "none",
            default(option),
        )
        for option in options(serve)
    ]


def test_the_flags_of_web() -> None:
    assert [
        (plain(row["flag"]), row["environment"], row["default"])
        for row in table("docs/page.md", "flag", "environment", "default", "meaning")
    ] == [(option.opts[0], option.envvar, default(option)) for option in options(web)]


def test_the_flags_of_front() -> None:
    prefix = front.context_settings["auto_envvar_prefix"]
    assert [
        (plain(row["flag"]), row["environment"], row["default"])
        for row in table("docs/front.md", "flag", "environment", "default", "meaning")
    ] == [
        (option.opts[0], f"{prefix}_{option.name}".upper(), default(option))
        for option in options(front)
    ]


def test_the_flags_of_cluster() -> None:
    assert [
        (plain(row["flag"]), row["environment"], row["default"])
        for row in table("docs/cluster.md", "flag", "environment", "default", "meaning")
    ] == [
        (option.opts[0], option.envvar, default(option))
        for option in options(cluster.commands["run"])
    ]


def test_the_flags_of_the_other_commands_of_cluster() -> None:
    listed = {
        (name, plain(row["flag"]))
        for row in table("docs/cluster.md", "flag", "commands", "meaning")
        for name in names(row["commands"])
    }
    assert listed == {
        (name, option.opts[0])
        for name, command in cluster.commands.items()
        for option in options(command)
        if name != "run"
    }


def test_serve_with_a_front_is_explained() -> None:
    assert "--front" in str(serve.help)
    assert "`mnist37 serve --front`" in (ROOT / FLAGS).read_text()


def test_the_pages_of_flags_lead_to_those_of_web_front_and_cluster() -> None:
    for page in (FLAGS, COMMAND_LINE):
        text = (ROOT / page).read_text()
        assert all(f"](../{name}.md" in text for name in ("page", "front", "cluster"))


def test_the_flags_that_reach_a_server() -> None:
    users = defaultdict(set)
    for name, command in commands.commands.items():
        for option in options(command):
            if option.envvar:
                users[option.opts[0], option.envvar, default(option)].add(name)
    callers = set().union(*users.values())
    listed = {}
    for row in table(FLAGS, "flag", "environment", "default", "commands"):
        every, *others = row["commands"].split(" but ")
        assert every == "all"
        key = plain(row["flag"]), row["environment"], row["default"]
        assert key not in listed
        listed[key] = callers - {name for cell in others for name in names(cell)}
    assert listed == dict(users)


def test_the_flags_of_single_commands() -> None:
    listed = [
        (name, plain(row["flag"]), row["default"])
        for row in table(FLAGS, "flag", "commands")
        for name in names(row["commands"])
    ]
    every = {"mnist37": commands, **commands.commands}
    assert sorted(listed) == sorted(
        (name, option.opts[0], default(option))
        for name, command in every.items()
        for option in options(command)
        if not option.envvar
    )


def test_the_commands() -> None:
    for row in table(COMMAND_LINE, "command"):
        name = plain(row["command"]).split()[0]
        pieces = commands.commands[name].collect_usage_pieces(CONTEXT)
        assert plain(row["command"]).split() == [name, *(p for p in pieces if p != "[OPTIONS]")]
    listed = [plain(row["command"]).split()[0] for row in table(COMMAND_LINE, "command")]
    assert sorted(listed) == sorted(commands.commands)


def test_the_exit_statuses() -> None:
    listed = [int(row["exit status"]) for row in table(COMMAND_LINE, "exit status")]
    used = {cli._exit_status(exception("")) for exception in errors.Mnist37Error.__subclasses__()}
    assert listed == sorted({0, *used, 130})


def calls(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each function that a module calls, and the Reasons among its arguments."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield (
                node.func.id,
                [
                    argument.attr
                    for argument in arguments
                    if isinstance(argument, ast.Attribute)
                    and ast.unparse(argument.value) == "Reason"
                ],
            )


def codes() -> dict[str, str]:
    """Return the code of each reason: a class's default one, and the reasons its callers pass."""
    code = {kind.__name__: code.name for kind, code in status.CODES.items()}
    found = {kind.reason.name: code[kind.__name__] for kind in status.CODES}
    for source in (ROOT / "server").rglob("*.py"):
        for function, reasons in calls(source):
            if function in code:
                found |= dict.fromkeys(reasons, code[function])
    return {**found, Reason.INTERNAL.name: "INTERNAL"}


def test_the_reasons() -> None:
    seconds = {reason.name: delay for reason, delay in status.RETRY_AFTER_SECONDS.items()}
    code = codes()
    expected = {reason.name: (code[reason.name], seconds.get(reason.name)) for reason in Reason}
    for reason, delay in client_status.REFUSED_BY_GRPC.values():
        expected[reason] = ("RESOURCE_EXHAUSTED", delay)
    expected[OVERLOADED] = ("UNAVAILABLE", RETRY_SECONDS)  # of a front
    rows = table(ERRORS, "reason", "code", "metadata", "retry after")
    assert len(rows) == len(expected)
    assert {
        plain(row["reason"]): (
            row["code"],
            float(row["retry after"].removesuffix(" s")) if row["retry after"] else None,
        )
        for row in rows
    } == expected


def test_the_clients_exceptions() -> None:
    exceptions = {code.name: kind for code, kind in client_status.EXCEPTIONS.items()}
    exceptions["OK"] = errors.InvalidResponse
    exceptions["any other"] = errors.ServerError
    rows = table(ERRORS, "code", "exception")
    assert len(rows) == len(exceptions)
    assert {
        row["code"]: (plain(row["exception"]), int(row["exit status of `mnist37`"])) for row in rows
    } == {code: (kind.__name__, cli._exit_status(kind(""))) for code, kind in exceptions.items()}
    assert grpc.StatusCode.INTERNAL not in client_status.EXCEPTIONS
    assert {kind.__name__ for kind in exceptions.values()} <= set(mnist37_client.__all__)


def test_the_metrics() -> None:
    with (
        LocalServer("--metrics-address", "127.0.0.1:0") as server,
        Client(server.address) as client,
        LocalServer("--metrics-address", "127.0.0.1:0", "--follow", server.address) as follower,
        Client(follower.address) as reader,
    ):
        client.train(epochs=1).wait()
        client.predict(validation_images()[0][:1])
        reader.predict(validation_images()[0][:1])
        exposed, of_follower = exposed_metrics(server), exposed_metrics(follower)
    rows = table(METRICS, "metric", "type", "labels")
    assert len(rows) == len(exposed)
    assert {
        plain(row["metric"]): (row["type"], set(names(row["labels"]))) for row in rows
    } == exposed
    rows = table(METRICS, "metric of a follower", "type")
    assert {plain(row["metric of a follower"]): (row["type"], set()) for row in rows} == {
        name: kind for name, kind in of_follower.items() if name not in exposed
    }
    assert of_follower.keys() & exposed.keys() >= {
        "mnist37_model_version",
        "mnist37_images_predicted_total",
        "grpc_server_handled_total",
        "mnist37_tls_handshakes_failed_total",
    }


def exposed_metrics(server: LocalServer) -> dict[str, tuple[str, set[str]]]:
    """Return the type and the labels of each metric that a server exposes."""
    assert server.process.stdout is not None
    scrape = Scrape(server.process.stdout.readline().split()[-1])
    exposed = {}
    for family in text_string_to_metric_families(scrape.text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exposed[name] = family.type, labels
    return exposed


def test_the_roles() -> None:
    listed = [
        (plain(row["service"]), plain(row["RPC"]), row["role"])
        for row in table(ACCESS, "service", "RPC", "role")
    ]
    assert sorted(listed) == sorted(
        (service, rpc, role.value if role else "none")
        for service, roles in REQUIRED_ROLES.items()
        for role, rpcs in roles.items()
        for rpc in rpcs
    )


def test_a_callers_settings() -> None:
    shared = {option.opts[0]: option for option in options(commands.commands["loss"])}
    listed = set()
    for row in table(ACCESS, "`Client(…)`"):
        setting, flag = plain(row["`Client(…)`"]), plain(row["flag"])
        assert flag == "--" + setting.replace("_", "-")
        assert row["environment"] == shared[flag].envvar
        listed.add(setting)
    assert listed == set(inspect.signature(Client).parameters) - {
        *("address", "replicas", "timeout", "retry_for")
    }


def test_the_clients_settings() -> None:
    parameters = inspect.signature(AsyncClient).parameters
    assert set(parameters) == {*inspect.signature(Client).parameters, "merge"}
    rows = table(CLIENT, "setting", "default")
    assert [plain(row["setting"]) for row in rows] == list(parameters)
    for row in rows:
        value = parameters[plain(row["setting"])].default
        assert row["default"] == (f"{value:g}" if isinstance(value, float) else str(value))


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_clients_methods(client: type) -> None:
    def signature(method: object) -> str:
        assert callable(method)
        found = inspect.signature(method)
        _, *parameters = found.parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        return str(inspect.Signature(bare))

    # In the order of the source: those of the client itself, then those that it inherits.
    members = {name: method for part in client.__mro__ for name, method in vars(part).items()}
    public = {name: method for name, method in members.items() if not name.startswith("_")}
    listed = [plain(row["method"]) for row in table(CLIENT, "method")]
    assert listed == [
        name + signature(method) for name, method in public.items() if callable(method)
    ]


def test_the_services() -> None:
    listed = [plain(row["service"]) for row in table(PROTOCOLS, "service")]
    assert listed == list(REQUIRED_ROLES)
    parts = {row["part"]: plain(row["name"]) for row in table(PROTOCOLS, "part", "name")}
    assert parts == {
        "model": open_inference.MODEL,
        "input": tensors.INPUT,
        "output": tensors.OUTPUT,
    }
