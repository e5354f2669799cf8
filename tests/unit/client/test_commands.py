"""Tests of the class of the commands: the client's, and the server's, which are two of one kind."""

from __future__ import annotations

import click
import pytest
from mnist37_client.cli.group import Command as ClientCommand
from mnist37_server.command_line.command import Command as ServerCommand

SECRET = "c2VjcmV0IHRva2Vu=="  # as base64 has it


def run(kind: type[click.Command], *arguments: str) -> object:
    """Return the values of a command's options and arguments, or the text of its refusal."""
    parameters: list[click.Parameter] = [
        click.Option(["--token"]),
        click.Option(["--request-id"]),
        click.Option(["--insecure"], is_flag=True),
        click.Argument(["word"], required=False),
    ]
    command = kind("function", params=parameters, callback=lambda **values: values)
    try:
        return command.main(list(arguments), "mnist37 any", standalone_mode=False)
    except click.UsageError as error:
        return error.format_message()


@pytest.mark.parametrize("kind", [ClientCommand, ServerCommand])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--token="], "--token"),
        (["--token", ""], "--token"),
        (["--insecure", "--request-id="], "--request-id"),
        ([""], "any"),
        (["--token", SECRET, ""], "any"),
        ([f"--token={SECRET}", ""], "any"),
        (["--token", SECRET, "--request-id", ""], "--request-id"),
    ],
)
def test_an_empty_value_is_refused_without_its_neighbours(
    kind: type[click.Command], arguments: list[str], name: str
) -> None:
    assert run(kind, *arguments) == f"{name}: got an empty value; give another or none"


@pytest.mark.parametrize("kind", [ClientCommand, ServerCommand])
@pytest.mark.parametrize("value", [SECRET, "=", "--other=", "a="])
@pytest.mark.parametrize("form", ["--token={}", "--token {}"])
def test_a_value_may_end_with_an_equals_sign(
    kind: type[click.Command], value: str, form: str
) -> None:
    expected = {"token": value, "request_id": None, "insecure": False, "word": None}
    assert run(kind, *form.format(value).split(" ")) == expected


def test_arguments_that_are_too_many_are_counted_and_not_quoted() -> None:
    # As a shell passes on a token with a space that is not in quotes.
    refusal = run(ClientCommand, "--token", "train", "first", SECRET)
    assert refusal == "too many arguments, by 1; a value with spaces needs quotes"
