"""Reports of the results: a table in the terminal, JSON, a drawing, and the page's table."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from rich.table import Table

from benchmarks.harness import Benchmark, Figure, Result, Spread, Verdict
from benchmarks.processes import CORES

COLOURS = {Verdict.HOLDS: "green", Verdict.MISSED: "red", Verdict.INCONCLUSIVE: "yellow"}
PACKAGES = ("torch", "triton", "grpcio", "numpy", "scikit-learn")
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"  # around a page's table

Machine: TypeAlias = dict[str, str | int | float]


def machine() -> Machine:
    """Return what the ratios depend on, and nothing that identifies the machine's owner."""
    return {
        "processor": processor_name(),
        "cores": len(CORES),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: package_version(package) for package in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
        "load before": round(os.getloadavg()[0], 2),
    }


def label(about: Machine) -> str:
    """Return the name of the CUDA device that the results are about, or else the processor's."""
    return str(about.get("device", about["processor"]))


def processor_name() -> str:
    """Return the processor's name from /proc/cpuinfo, or else its architecture."""
    try:
        names = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = None
    return names[1] if names else platform.machine()


def package_version(package: str) -> str:
    """Return the installed version of a package, or "none"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def new_table() -> Table:
    """Return an empty table, whose rows have two lines each."""
    table = Table(show_lines=True)
    table.add_column("benchmark\n[dim]A / B, or A - B, or A", min_width=20)
    table.add_column("A\nB", justify="right", no_wrap=True)
    table.add_column("figure\n[dim]its middle half", justify="right", no_wrap=True)
    table.add_column("aim\n[dim]A / A", justify="right", no_wrap=True)
    # The reason why a row is left out takes some lines.
    table.add_column("", min_width=12, max_width=14)
    return table


def table_row(result: Result) -> list[str]:
    """Return a result as a row of the table."""
    benchmark, figure, unit = result.benchmark, result.figure, unit_of_figure(result)
    scaled = unit if unit == "s" else ""  # other units are the same in both lines
    middle_half = (
        f"{format_quantity(figure.lower, scaled)} to {format_quantity(figure.upper, scaled)}"
    )
    sign = "≥" if benchmark.aim.sense == "at least" else "≤"
    b = "" if result.b is None else format_quantity(result.b.median, benchmark.unit)
    control = "" if result.control is None else f"{result.control.median:.3f}"
    return [
        title(benchmark),
        f"{format_quantity(result.a.median, benchmark.unit)}\n{b}",
        f"[bold]{format_quantity(figure.median, unit)}[/]\n[dim]{middle_half}",
        f"{sign} {format_quantity(benchmark.aim.bound, unit)}\n[dim]{control}",
        f"[{COLOURS[result.verdict]}]{result.verdict.value}",
    ]


def format_line(result: Result) -> str:
    """Return a result as one line, for a log."""
    figure, unit = result.figure, unit_of_figure(result)
    median = f"{format_quantity(figure.median, unit)} ({result.benchmark.aim})"
    return f"{result.benchmark.key}: {median}: {result.verdict.value}"


def title(benchmark: Benchmark) -> str:
    """Return a benchmark's key and name as the first cell of its row."""
    return f"[bold]{benchmark.key}[/]\n[dim]{benchmark.name}"


def unit_of_figure(result: Result) -> str:
    """Return the unit of a result's figure; a ratio has none."""
    benchmark = result.benchmark
    return "" if benchmark.figure is Figure.RATIO else benchmark.unit


def format_quantity(value: float, unit: str) -> str:
    """Return a value with three digits and its unit; times below 1 s get ms or µs."""
    if unit == "s" and abs(value) < 1:
        value, unit = (value * 1e3, "ms") if abs(value) >= 1e-3 else (value * 1e6, "µs")
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def as_json(result: Result) -> dict[str, Any]:
    """Return a result with all its measurements, for a JSON file."""
    benchmark = result.benchmark
    return {
        "key": benchmark.key,
        "name": benchmark.name,
        "figure": benchmark.figure.value,
        "unit": benchmark.unit,
        "aim": str(benchmark.aim),
        "verdict": result.verdict.value,
        "result": spread_as_json(result.figure),
        "A": spread_as_json(result.a),
        "B": spread_as_json(result.b),
        "A / A": spread_as_json(result.control),
    }


def spread_as_json(spread: Spread | None) -> dict[str, Any] | None:
    """Return the quartiles and values of a spread, rounded to five digits."""
    if spread is None:
        return None

    def short(value: float) -> float:
        return float(f"{value:.5g}")

    quartiles = [short(value) for value in (spread.lower, spread.median, spread.upper)]
    return {"quartiles": quartiles, "values": [short(value) for value in spread.values]}


def write(folder: Path, name: str, about: Machine, results: Sequence[Result]) -> list[Path]:
    """Write the results into a folder as JSON and as a drawing; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    content = json.dumps({"machine": about, "results": [as_json(r) for r in results]}, indent=1)
    # json.dumps puts each number on a line of its own.
    file.write_text(re.sub(r"\[[-\d\s.,e]+\]", lambda m: " ".join(m[0].split()), content) + "\n")
    return [file, *draw(file.with_suffix(".svg"), about, results)]


def page_table(about: Machine, rows: Sequence[dict[str, Any]], sources: Sequence[str]) -> str:
    """Return the results as the Markdown table of a page in docs, below a line on the machine.

    Args:
        about: the machine.
        rows: the results, each as `as_json` returns it.
        sources: the names of the files in benchmarks/results that hold them.
    """
    links = ", ".join(f"[{source}](../benchmarks/results/{source})" for source in sources)
    lines = [
        f"{label(about)}, {about['cores']} cores; every pair is in {links}.",
        "",
        "| row | median (its middle half) | aim | verdict |",
        "|---|---|---|---|",
    ]
    for row in rows:
        unit = "" if row["figure"] == Figure.RATIO.value else row["unit"]
        scaled = unit if unit == "s" else ""  # other units are the same in the whole cell
        lower, median, upper = row["result"]["quartiles"]
        middle_half = f"{format_quantity(lower, scaled)} to {format_quantity(upper, scaled)}"
        sense, _, bound = row["aim"].rpartition(" ")
        aim = f"{sense} {format_quantity(float(bound.replace(',', '')), unit)}"
        name = f"`{row['key']}`: {row['name']}".replace("|", r"\|")
        figure = f"{format_quantity(median, unit)} ({middle_half})"
        lines.append(f"| {name} | {figure} | {aim} | {row['verdict']} |")
    return "\n".join(lines)


def update_page(page: Path, table: str) -> None:
    """Replace what stands between the markers of a page by a table.

    Raises:
        ValueError: the page lacks the markers.
    """
    head, begin, rest = page.read_text().partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"{END}\n")
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{head}{begin}{table}\n{end}{tail}")


def draw(file: Path, about: Machine, results: Sequence[Result]) -> list[Path]:
    """Draw how far each figure is from its aim; right of the line the aim holds.

    Returns:
        The file, or an empty list if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    mpl.rcParams["svg.hashsalt"] = "mnist37"  # the same results, the same file
    from matplotlib import pyplot as plt

    height = 1.2 + 0.4 * len(results)
    figure, axes = plt.subplots(figsize=(10, height), layout="constrained")
    for place, result in enumerate(results):
        margins = sorted(margin(result, v) for v in (result.figure.lower, result.figure.upper))
        colour = COLOURS[result.verdict].replace("yellow", "goldenrod")
        middle = margin(result, result.figure.median)
        axes.plot(margins, [place, place], color=colour, linewidth=5, alpha=0.4)
        sure = colour if result.verdict is not Verdict.INCONCLUSIVE else "white"
        axes.plot([middle], [place], "o", color=colour, markerfacecolor=sure)
        aim, unit = result.benchmark.aim, unit_of_figure(result)
        median = format_quantity(result.figure.median, unit)
        text = f"{median}, {aim.sense} {format_quantity(aim.bound, unit)}"
        text += "" if result.verdict is Verdict.HOLDS else f": {result.verdict.value}"
        axes.annotate(text, (middle, place), (0, 7), textcoords="offset points", fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(ticks[0] * 0.8, ticks[-1] * 3.5)  # room for the last one's text
    axes.set_yticks(range(len(results)), [result.benchmark.name for result in results])
    axes.set_ylim(len(results) - 0.4, -0.8)
    axes.set_xlabel("times better than the aim; the bar is the middle half of the pairs")
    axes.set_title(f"{label(about)}, {about['cores']} cores, {about['date']}")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return [file]


def margin(result: Result, figure: float) -> float:
    """Return how many times better than its aim a figure is, between 0.25 and 8."""
    aim = result.benchmark.aim
    better = figure / aim.bound if aim.sense == "at least" else aim.bound / max(figure, 1e-9)
    return min(max(better, 0.25), 8.0)
