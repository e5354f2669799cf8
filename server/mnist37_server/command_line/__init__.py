"""The server's command line: the options of mnist37 serve, and the process that it runs."""

from mnist37_server.command_line.command import main
from mnist37_server.command_line.running import refused_by_system, serve, start

__all__ = ["main", "refused_by_system", "serve", "start"]
