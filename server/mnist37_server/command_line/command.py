"""The command `mnist37 serve`: it turns the options into the settings of a server."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mnist37_server.command_line.options import (
    FOLLOWERS_ALONE,
    IN_MEMORY,
    OWNERS_ALONE,
    add_options,
)
from mnist37_server.config import Config, Following
from mnist37_server.errors import CannotStart

NO_COMPILER = "NUMBA_DISABLE_JIT"


class Command(click.Command):
    """A command that refuses empty values: mostly, a script's variable is not set.

    An environment variable that is empty counts as not set.
    """

    # Neither package may import the other: mnist37_client.cli.group has this class too.

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
        return super().parse_args(ctx, args)


@click.command(
    cls=Command,
    context_settings={
        "show_default": True,
        "auto_envvar_prefix": "MNIST37",
        "help_option_names": ["-h", "--help"],
    },
)
@add_options
@click.pass_context
def main(
    context: click.Context,
    /,
    state: str | None,
    log_format: str,
    log_level: str,
    follow: str | None,
    **settings: Any,  # noqa: ANN401 - the fields of Config
) -> Config:
    """Train and serve one live model: a classifier of handwritten 3s and 7s.

    With --follow, only serve the model that another server owns. With --front, start a native front
    before the server; `mnist37 front --help` says what it does.

    Prints "listening on HOST:PORT" when it is ready; ends on SIGINT, SIGTERM and SIGHUP. Every
    option can be set by an environment variable too: MNIST37_ADDRESS, MNIST37_DEVICE, ...
    """
    if importlib.util.find_spec("numba") is None:
        sys.exit(
            "mnist37 serve needs more than the client: pip install 'mnist37[server]', or"
            " 'mnist37[serve-cpu]' for a server without torch and CUDA"
        )
    check_compiler()
    following = _parse_following(context, follow, settings)
    if settings["download"] and settings["data_root"] is None:
        raise click.UsageError("--download needs --data-root, the folder to fetch MNIST into")
    folder = _folder(state) if following is None else None
    config = Config(state=folder, following=following, **settings)
    from mnist37_server.observability import handshakes, logs  # import a package of the extras

    if config.tls_cert is not None:
        handshakes.FAILED.follow()
    logs.configure(log_format, log_level)
    # gRPC's core would print its own message about a port in use, beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Off until the server is ready: the objects that imports create stay, and repeated collections
    # would take a tenth of the time of a start.
    gc.disable()
    return config


def check_compiler() -> None:
    """Raise CannotStart if numba is told to compile nothing: the kernels run compiled alone."""
    if os.environ.get(NO_COMPILER, "0") not in ("", "0"):
        raise CannotStart(f"{NO_COMPILER}: is set, and the kernels run compiled alone; unset it")


def _parse_following(
    context: click.Context, owner: str | None, settings: dict[str, Any]
) -> Following | None:
    """Return the settings of a follower, taken out of `settings`; None for an owner."""
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name))
        not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
        and context.params.get(str(parameter.name)) is not False  # a flag's variable may be "false"
    }
    values = {name.removeprefix("follow_"): settings.pop(name) for name in FOLLOWERS_ALONE}
    if owner is None:
        for name in FOLLOWERS_ALONE:
            if name in given:
                raise click.UsageError(f"{given[name]} needs --follow, the address of the owner")
        return None
    for name in OWNERS_ALONE:
        if name in given:
            raise click.UsageError(
                f"{given[name]} cannot be used with --follow: a follower has no state and no"
                " training; leave it out"
            )
    return Following(owner, **values)


def _folder(state: str | None) -> Path | None:
    if state == IN_MEMORY:
        return None
    if state is None:
        import platformdirs  # a package of the extras

        try:
            return platformdirs.user_state_path("mnist37")
        except RuntimeError as error:  # no HOME, and a user whom the system does not know
            raise CannotStart(
                f"--state: this user has no home folder; name a folder, or {IN_MEMORY} to keep"
                " nothing"
            ) from error
    return Path(state)
