"""A benchmark and its measurement: in pairs, and against itself first.

A machine's speed drifts, because of other programs, heat, and the memory that a process happens to
get. So A and B are measured in turn, for a moment each, many times, in processes that are restarted
a few times. The figure is the median of the ratios of neighbours. A is also compared with another A
in the same way: the distance of that ratio from 1 shows which differences this machine can resolve.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

TOLERANCE = 0.03  # the largest distance from 1 of the median of A against A

Measure = Callable[[float], float]  # duration in seconds, about -> the value, in the unit
Side = Callable[[], AbstractContextManager[Measure]]  # starts processes, and ends them at its exit


class MissingRequirement(Exception):
    """A missing program or device that a benchmark needs; the text says how to get it."""


@dataclass(frozen=True)
class Aim:
    """A bound on a benchmark's figure."""

    sense: Literal["at least", "at most"]
    bound: float

    def holds(self, figure: float) -> bool:
        """Return whether the figure is on the right side of the bound."""
        return figure >= self.bound if self.sense == "at least" else figure <= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:,g}"


@dataclass(frozen=True)
class Options:
    """The options of a run, which all benchmarks receive."""

    disk: Path = Path()  # a folder on the disk that holds the state folders
    soak: bool = False  # measure the memory over a million predictions and 10,000 epochs


class Figure(Enum):
    """The quantity that a benchmark's aim bounds."""

    RATIO = "A / B"
    DIFFERENCE = "A - B"
    VALUE = "A"  # alone, for example a bound on seconds


@dataclass(frozen=True)
class Benchmark:
    """A comparison of two sides, or a measurement of one."""

    key: str  # its name on the command line: the theme, a dash, the rest
    name: str
    unit: str  # of the values of A and B; "" where they have none
    aim: Aim
    a: Side
    b: Side | None = None
    figure: Figure = Figure.RATIO
    seconds: float = 0.25  # of one measurement
    pairs: int = 8  # from one pair of processes
    rounds: int = 3  # each with fresh processes


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and their quartiles."""

    values: Sequence[float]
    median: float = field(init=False)
    lower: float = field(init=False)  # quartile
    upper: float = field(init=False)

    def __post_init__(self) -> None:
        values = list(self.values) * (2 if len(self.values) == 1 else 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        for name, value in (("lower", lower), ("median", median), ("upper", upper)):
            object.__setattr__(self, name, value)


class Verdict(Enum):
    """The judgement of a result."""

    HOLDS = "holds"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"  # A against A is too far from 1 on this machine


@dataclass(frozen=True)
class Result:
    """The outcome of a benchmark."""

    benchmark: Benchmark
    a: Spread
    b: Spread | None
    figure: Spread
    control: Spread | None  # A against A; None where only A is measured

    @property
    def verdict(self) -> Verdict:
        """Return whether the aim is met, as far as this machine can resolve it."""
        if self.control is not None and abs(self.control.median - 1) > TOLERANCE:
            return Verdict.INCONCLUSIVE
        return Verdict.HOLDS if self.benchmark.aim.holds(self.figure.median) else Verdict.MISSED


def run(benchmark: Benchmark, *, quick: bool = False) -> Result:
    """Run a benchmark and return its outcome.

    Args:
        benchmark: the benchmark.
        quick: run one short pair only, to check that the benchmark works; the figure means nothing.

    Raises:
        MissingRequirement: this machine lacks something that the benchmark needs.
    """
    rounds, pairs = (1, 1) if quick else (benchmark.rounds, benchmark.pairs)
    seconds = benchmark.seconds / 5 if quick else benchmark.seconds
    control: list[tuple[float, float]] = []
    compared: list[tuple[float, float]] = []
    alone: list[float] = []
    for _ in range(rounds):
        with ExitStack() as processes:
            a = processes.enter_context(benchmark.a())
            if benchmark.b is None:
                alone += [a(seconds) for _ in range(pairs)]
                continue
            twin = processes.enter_context(benchmark.a())
            b = processes.enter_context(benchmark.b())
            for measure in (a, twin, b):
                measure(seconds)  # warm-up: caches, connections, the processor's clock
            control += measure_in_turn(a, twin, pairs, seconds)
            compared += measure_in_turn(a, b, pairs, seconds)
    return evaluate(benchmark, alone, compared, control)


def measure_in_turn(
    a: Measure, b: Measure, pairs: int, seconds: float
) -> list[tuple[float, float]]:
    """Measure A and B in turn and return the pairs (A, B).

    The first of a pair alternates between A and B, so that a drift favours neither.
    """
    results = []
    for number in range(pairs):
        if number % 2:
            b_value, a_value = b(seconds), a(seconds)
        else:
            a_value, b_value = a(seconds), b(seconds)
        results.append((a_value, b_value))
    return results


def evaluate(
    benchmark: Benchmark,
    alone: Sequence[float],
    compared: Sequence[tuple[float, float]],
    control: Sequence[tuple[float, float]],
) -> Result:
    """Compute a benchmark's outcome from its measurements.

    Args:
        benchmark: the benchmark.
        alone: the values of A, where the benchmark has no B.
        compared: the pairs (A, B).
        control: the pairs (A, A).
    """
    if benchmark.b is None:
        return Result(benchmark, Spread(alone), None, Spread(alone), None)
    if benchmark.figure is Figure.DIFFERENCE:
        figures = [a - b for a, b in compared]
    else:
        figures = [a / b for a, b in compared]
    return Result(
        benchmark,
        Spread([a for a, _ in compared]),
        Spread([b for _, b in compared]),
        Spread(figures),
        Spread([a / twin for a, twin in control]),
    )
