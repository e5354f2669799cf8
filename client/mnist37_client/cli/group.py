"""The group that the commands belong to."""

from __future__ import annotations

import os

import click


class Command(click.Command):
    """A command that refuses empty values: mostly, a script's variable is not set.

    An environment variable that is empty counts as not set.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise UsageError for an empty value."""
        for previous, argument in zip(["", *args], args, strict=False):
            if not argument or (argument.startswith("--") and argument.endswith("=")):
                name = argument.rstrip("=") or previous or str(self.name)
                raise click.UsageError(f"{name}: got an empty value; give another or none", ctx)
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """A group of such commands."""

    command_class = Command


@click.group(
    cls=Commands,
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    epilog="Begin with `mnist37 demo`. Or run `mnist37 serve` in one terminal and"
    " `mnist37 train 20` in another.",
)
@click.version_option(package_name="mnist37")
@click.pass_context
def commands(context: click.Context) -> None:
    """Train a live model and query it at the same time: is a handwritten digit a 3 or a 7?"""
    if context.invoked_subcommand != "serve":
        # An error is one line; gRPC's core would print lines of its own above it.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
