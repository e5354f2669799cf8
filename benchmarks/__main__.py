"""make bench, or: python -m benchmarks [--quick] [--soak] [NAME]..."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from benchmarks import processes, report
from benchmarks.harness import Benchmark, MissingRequirement, Options, Result, run
from benchmarks.processes import BOTH, LOAD
from benchmarks.suites import both, commits, device, predict, small, training

THEMES = (predict, training, both, commits, small, device)
RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Only see whether it works; nothing is written.")
@click.option("--soak", is_flag=True, help="Memory over 1,000,000 predictions and 10,000 epochs.")
@click.option("--list", "only_list", is_flag=True, help="List the benchmarks.")
@click.option(
    "--disk",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="A folder on the disk to keep states on; default: this one.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=RESULTS, help="Where results are written."
)
def main(
    names: tuple[str, ...], quick: bool, soak: bool, only_list: bool, disk: Path, out: Path
) -> None:
    """Measure how near the limit the service is.

    NAME is a benchmark, or what the names of several begin with before the dash; without one, all
    are run.
    """
    options = Options(disk.resolve(), soak)
    benchmarks = [row for theme in THEMES for row in theme.rows(options)]
    unknown = [name for name in names if not any(matches(b, name) for b in benchmarks)]
    if unknown:
        raise click.UsageError(f"no benchmark is named {unknown[0]!r}; --list lists them")
    chosen = [b for b in benchmarks if not names or any(matches(b, name) for name in names)]
    if only_list:
        for benchmark in chosen:
            click.echo(f"{benchmark.key:20} {benchmark.name}; {benchmark.aim}")
        return
    about = report.machine()
    if any(matches(benchmark, "device") for benchmark in chosen) and processes.cuda_name():
        about["device"] = str(processes.cuda_name())
    if len(BOTH) < 2:
        click.echo("There is but one core: the load runs on the server's, and takes from it.")
    os.sched_setaffinity(0, LOAD)
    results, broken = measure(chosen, quick=quick)
    if results and not quick:
        write(out, about, names, results)
    sys.exit(broken)


def measure(benchmarks: list[Benchmark], *, quick: bool) -> tuple[list[Result], bool]:
    """Runs the benchmarks and shows them.

    Returns:
        The results, and whether one of the benchmarks broke.
    """
    results, broken = [], False
    table = report.new_table()
    with Live(table, console=Console(), auto_refresh=False, vertical_overflow="visible") as live:
        for benchmark in benchmarks:
            table.caption = f"{benchmark.key} ..."
            live.refresh()
            try:
                results.append(run(benchmark, quick=quick))
                table.add_row(*report.table_row(results[-1]))
                if not live.console.is_terminal:  # where the table is not seen before its end
                    click.echo(report.format_line(results[-1]), err=True)
            except MissingRequirement as lack:
                table.add_row(report.title(benchmark), "", "", "", str(lack))
            except Exception as error:  # noqa: BLE001 - the others are still worth measuring
                broken = True
                table.add_row(report.title(benchmark), "", "", "", "[red]broke")
                live.console.print(f"{benchmark.key}: {error!r}")
        table.caption = None
        live.refresh()
    click.echo()
    return results, broken


def write(out: Path, about: report.Machine, names: Sequence[str], results: list[Result]) -> None:
    """Writes the results of what was asked for by these names, and says where."""
    name = "-".join([str(about["date"]), slug(report.label(about)), *names])
    for file in report.write(out, name, about, results):
        click.echo(f"written: {os.path.relpath(file)}")


def matches(benchmark: Benchmark, name: str) -> bool:
    """Whether a name is this benchmark's, or its theme's."""
    return name in (benchmark.key, benchmark.key.partition("-")[0])


def slug(name: str) -> str:
    """As a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
