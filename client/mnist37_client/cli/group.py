"""The group that the commands belong to."""

from __future__ import annotations

import click


@click.group(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    epilog="Begin with `mnist37 demo`. Or run `mnist37 serve` in one terminal and"
    " `mnist37 train 20` in another.",
)
@click.version_option(package_name="mnist37")
def commands() -> None:
    """Train a live model and query it at the same time: is a handwritten digit a 3 or a 7?"""
