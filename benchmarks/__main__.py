"""The command of `make bench`: python -m benchmarks [--quick] [--soak] [NAME]..."""

from __future__ import annotations

import json
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
from benchmarks.suites import (
    both,
    commits,
    device,
    follow,
    followers,
    front,
    predict,
    rest,
    small,
    training,
    tree,
)

THEMES = (
    *(predict, rest, training, both, commits, follow, followers),
    *(tree, front, small, device),
)
RESULTS = Path(__file__).parent / "results"
PAGE = processes.ROOT / "docs" / "performance.md"  # its table is written by a run of all rows


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
@click.option(
    "--table",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.json",
    help="Measure nothing; write the table of docs/performance.md from this file of results. Of"
    " several files the rows of a later one replace those of an earlier one.",
)
def main(
    names: tuple[str, ...],
    quick: bool,
    soak: bool,
    only_list: bool,
    disk: Path,
    out: Path,
    files: tuple[Path, ...],
) -> None:
    """Measure how near the limit the service is.

    NAME is a benchmark, or what the names of several begin with before the dash; without one, all
    are run, and the table of docs/performance.md is written.
    """
    if files:
        write_page(files)
        return
    options = Options(disk.resolve(), soak)
    benchmarks = all_rows(options)
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
        click.echo("There is one core only: the load shares it with the server.")
    os.sched_setaffinity(0, LOAD)
    results, broken = measure(chosen, quick=quick)
    if results and not quick:
        file, *_ = write(out, about, names, results)
        if not names and out == RESULTS:  # the page names a file in that folder
            update_page(file, missing_rows(chosen, results))
    sys.exit(broken)


def measure(benchmarks: list[Benchmark], *, quick: bool) -> tuple[list[Result], bool]:
    """Run the benchmarks and show them in a table.

    Returns:
        The results, and whether a benchmark failed.
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
                if not live.console.is_terminal:  # there the table appears at the end only
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


def write(
    out: Path, about: report.Machine, names: Sequence[str], results: list[Result]
) -> list[Path]:
    """Write the results of the rows with these names, print the files' paths and return them."""
    name = "-".join([str(about["date"]), slug(report.label(about)), *names])
    files = report.write(out, name, about, results)
    for file in files:
        click.echo(f"written: {os.path.relpath(file)}")
    return files


def missing_rows(benchmarks: Sequence[Benchmark], results: Sequence[Result]) -> list[str]:
    """Return the keys of the rows without a result, but for those of a CUDA device."""
    measured = {result.benchmark.key for result in results}
    return [b.key for b in benchmarks if b.key not in measured and not matches(b, "device")]


def update_page(file: Path, missing: Sequence[str]) -> None:
    """Write the page's table from a file of results, unless rows are missing in it."""
    if missing:
        click.echo(f"{os.path.relpath(PAGE)} stays as it is; not measured: {', '.join(missing)}")
    else:
        write_page([file])


def write_page(files: Sequence[Path]) -> None:
    """Write the page's table from files of results, and print the page's path."""
    table = page_table(files)
    try:
        report.update_page(PAGE, table)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"written: {os.path.relpath(PAGE)}")


def page_table(files: Sequence[Path]) -> str:
    """Return the page's table from files of results, without rows that are no longer measured."""
    current = {(b.key, b.figure.value, b.unit, str(b.aim)) for b in all_rows(Options())}
    contents = [json.loads(file.read_text()) for file in files]
    rows = {row["key"]: row for content in contents for row in content["results"]}
    kept = [
        row
        for row in rows.values()
        if (row["key"], row["figure"], row["unit"], row["aim"]) in current
    ]
    return report.page_table(contents[0]["machine"], kept, [file.name for file in files])


def all_rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of all themes."""
    return [row for theme in THEMES for row in theme.rows(options)]


def matches(benchmark: Benchmark, name: str) -> bool:
    """Return whether a name is this benchmark's key or its theme."""
    return name in (benchmark.key, benchmark.key.partition("-")[0])


def slug(name: str) -> str:
    """Return a name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
