"""What came out, as a table, as JSON and as a drawing."""

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

Machine: TypeAlias = dict[str, str | int | float]


def machine() -> Machine:
    """What the ratios depend on; nothing that says whose machine it is."""
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
    """What the results are named by: the CUDA device where they are about one, or the processor."""
    return str(about.get("device", about["processor"]))


def processor_name() -> str:
    """Its name, as Linux knows it."""
    try:
        names = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = None
    return names[1] if names else platform.machine()


def package_version(package: str) -> str:
    """A package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def new_table() -> Table:
    """A table that has no rows yet; each row has two lines."""
    found = Table(show_lines=True)
    found.add_column("benchmark\n[dim]A / B, or A - B, or A", min_width=20)
    found.add_column("A\nB", justify="right", no_wrap=True)
    found.add_column("figure\n[dim]its middle half", justify="right", no_wrap=True)
    found.add_column("aim\n[dim]A / A", justify="right", no_wrap=True)
    found.add_column("", min_width=12, max_width=14)  # why one is left out takes some lines
    return found


def table_row(result: Result) -> list[str]:
    """A result as a row of the table."""
    benchmark, figure, unit = result.benchmark, result.figure, unit_of_figure(result)
    scaled = unit if unit == "s" else ""  # other units are the same in each line
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
    """A result in one line, for a log."""
    figure, unit = result.figure, unit_of_figure(result)
    found = f"{format_quantity(figure.median, unit)} ({result.benchmark.aim})"
    return f"{result.benchmark.key}: {found}: {result.verdict.value}"


def title(benchmark: Benchmark) -> str:
    """What a benchmark is asked for by, and what it measures."""
    return f"[bold]{benchmark.key}[/]\n[dim]{benchmark.name}"


def unit_of_figure(result: Result) -> str:
    """A ratio has none."""
    benchmark = result.benchmark
    return "" if benchmark.figure is Figure.RATIO else benchmark.unit


def format_quantity(value: float, unit: str) -> str:
    """Three digits and the unit; short times in smaller ones."""
    if unit == "s" and abs(value) < 1:
        value, unit = (value * 1e3, "ms") if abs(value) >= 1e-3 else (value * 1e6, "µs")
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def as_json(result: Result) -> dict[str, Any]:
    """A result with every pair that it comes from."""
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
    """Numbers with five digits, which is more than they are worth."""
    if spread is None:
        return None

    def short(value: float) -> float:
        return float(f"{value:.5g}")

    quartiles = [short(value) for value in (spread.lower, spread.median, spread.upper)]
    return {"quartiles": quartiles, "values": [short(value) for value in spread.values]}


def write(folder: Path, name: str, about: Machine, results: Sequence[Result]) -> list[Path]:
    """Writes the results into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    content = json.dumps({"machine": about, "results": [as_json(r) for r in results]}, indent=1)
    # A list of numbers belongs on one line.
    file.write_text(re.sub(r"\[[-\d\s.,e]+\]", lambda m: " ".join(m[0].split()), content) + "\n")
    return [file, *draw(file.with_suffix(".svg"), about, results)]


def draw(file: Path, about: Machine, results: Sequence[Result]) -> list[Path]:
    """Draws how far each figure is from its aim: right of the line it holds.

    Returns:
        The file, or nothing where matplotlib is missing.
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
    """How many times better than its aim a figure is, within what can be drawn."""
    aim = result.benchmark.aim
    better = figure / aim.bound if aim.sense == "at least" else aim.bound / max(figure, 1e-9)
    return min(max(better, 0.25), 8.0)
