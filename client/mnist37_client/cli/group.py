"""The group that the commands belong to."""

from __future__ import annotations

import os

import click


class Command(click.Command):
    """A command that refuses empty values: mostly, a script's variable is not set.

    An environment variable that is empty counts as not set.
    """

    # Neither package may import the other: mnist37_server.command_line.command has this class too,
    # for commands that take no token.

    allow_extra_args = True  # click would refuse them with their text

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise UsageError for an empty value.

        Its text names the option and quotes no other argument: the one before an empty value may be
        a token.
        """
        if ctx.ignore_unknown_options:  # the command to which it hands its arguments verifies them
            return super().parse_args(ctx, args)
        options = {name for option in self.params for name in option.opts}
        for previous, argument in zip(["", *args], args, strict=False):
            name, sign, value = argument.partition("=")  # a value may end with "=" too
            if not argument or (name in options and sign and not value):
                command = str(ctx.info_name).rpartition(" ")[2]
                place = name or (previous if previous in options else command)
                raise click.UsageError(f"{place}: got an empty value; give another or none", ctx)
        rest = super().parse_args(ctx, args)
        if rest:  # not quoted: of a token in two words, the second is here
            text = f"too many arguments, by {len(rest)}; a value with spaces needs quotes"
            raise click.UsageError(text, ctx)
        return rest


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
