"""The command `mnist37 serve --front`: a server and its front, with the options of the server."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.core import ParameterSource
from mnist37_server.command_line.command import Command
from mnist37_server.command_line.options import add_options
from mnist37_server.errors import CannotStart

from mnist37_front.settings import FrontSettings, Pair

# The options that the front takes to itself: the owner listens on a socket file of this user's, and
# gets a file of tokens from the front.
FRONTS_ALONE = (
    *("address", "tls_cert", "tls_key", "client_ca", "insecure", "tokens"),
    *("keepalive", "max_connection_age"),
)
# The options that both get.
SHARED = ("max_message_mib", "message_timeout", "shutdown_grace", "log_format", "log_level")


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
def serve(context: click.Context, /, **settings: Any) -> Pair:  # noqa: ANN401 - the options
    """Serve one live model behind a native front.

    The options are those of `mnist37 serve`. The server listens on a socket file, and the front on
    --address. --metrics-address is the server's.
    """
    if settings["follow"] is not None:
        raise click.UsageError("--follow cannot be used with --front; `mnist37 front` follows")
    if settings["max_followers"] == 0:
        raise click.UsageError("--max-followers 0 cannot be used with --front, which is a follower")
    fronts = {name: settings[name] for name in (*FRONTS_ALONE, *SHARED)}
    try:
        # The owner will be in the front's folder, which does not exist yet.
        front = FrontSettings(owner="unix:/nonexistent", **fronts)
    except CannotStart as error:
        if "--no-http" not in str(error):
            raise
        raise CannotStart(
            f"{error}; --password-file and --no-http are flags of `mnist37 front`: start it beside"
            " `mnist37 serve`"
        ) from error
    options = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in FRONTS_ALONE or source in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
            continue
        if isinstance(parameter, click.Option) and parameter.is_flag:
            options += [parameter.opts[0]] if settings[name] else []  # its variable may be "false"
        else:
            options += [parameter.opts[0], str(settings[name])]
    return Pair(front, (sys.executable, "-P", "-m", "mnist37_server", *options))
