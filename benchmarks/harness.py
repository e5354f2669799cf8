"""A benchmark, and how it is measured: in pairs, and against itself first.

A machine's speed drifts: other programs, heat, the memory that a process happened to get. So A and
B are measured in turn, for a moment each, many times, in processes that are started anew a few
times; what counts is the median of the ratios of neighbours. How far A is from another A in the
same way says what this machine can tell at all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

TOLERANCE = 0.03  # how far from 1 the median of A against A may be

Measure = Callable[[float], float]  # for about so many seconds -> what was found, in the unit
Side = Callable[[], AbstractContextManager[Measure]]  # starts processes; ends them at its exit


class MissingRequirement(Exception):
    """A benchmark needs what this machine lacks; the text says what, and how to get it."""


@dataclass(frozen=True)
class Aim:
    """A bound on a benchmark's figure."""

    sense: Literal["at least", "at most"]
    bound: float

    def holds(self, figure: float) -> bool:
        """Whether the figure is on the right side of the bound."""
        return figure >= self.bound if self.sense == "at least" else figure <= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:,g}"


@dataclass(frozen=True)
class Options:
    """What all benchmarks are told."""

    disk: Path = Path()  # a folder on the disk that states are kept on
    soak: bool = False  # the memory's growth over a million predictions and 10,000 epochs


class Figure(Enum):
    """What a benchmark's aim is about."""

    RATIO = "A / B"
    DIFFERENCE = "A - B"
    VALUE = "A"  # alone: a bound on seconds, say


@dataclass(frozen=True)
class Benchmark:
    """Two things to compare, or one to measure."""

    key: str  # what it is asked for by: the theme, a dash, the rest
    name: str
    unit: str  # of what A and B find; "" of a number of its own
    aim: Aim
    a: Side
    b: Side | None = None
    figure: Figure = Figure.RATIO
    seconds: float = 0.25  # of one measurement
    pairs: int = 8  # from one pair of processes
    rounds: int = 3  # of processes


@dataclass(frozen=True)
class Spread:
    """The middle of some numbers, and where the middle half of them lies."""

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
    """What came out."""

    HOLDS = "holds"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"  # A against A is too far from 1 on this machine


@dataclass(frozen=True)
class Result:
    """A benchmark's outcome."""

    benchmark: Benchmark
    a: Spread
    b: Spread | None
    figure: Spread
    control: Spread | None  # A against A; nothing is to be compared where only A is measured

    @property
    def verdict(self) -> Verdict:
        """Whether the aim is met, as far as this machine can tell."""
        if self.control is not None and abs(self.control.median - 1) > TOLERANCE:
            return Verdict.INCONCLUSIVE
        return Verdict.HOLDS if self.benchmark.aim.holds(self.figure.median) else Verdict.MISSED


def run(benchmark: Benchmark, *, quick: bool = False) -> Result:
    """Measures a benchmark.

    Args:
        benchmark: what to measure.
        quick: only to see that it works: one short pair, which says nothing.

    Raises:
        MissingRequirement: this machine lacks something that it needs.
    """
    rounds, pairs = (1, 1) if quick else (benchmark.rounds, benchmark.pairs)
    seconds = benchmark.seconds / 5 if quick else benchmark.seconds
    control: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []
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
                measure(seconds)  # once for nothing: caches, connections, the processor's clock
            control += measure_in_turn(a, twin, pairs, seconds)
            found += measure_in_turn(a, b, pairs, seconds)
    return evaluate(benchmark, alone, found, control)


def measure_in_turn(
    a: Measure, b: Measure, pairs: int, seconds: float
) -> list[tuple[float, float]]:
    """Pairs of neighbours; who is first alternates, so that a drift favours neither."""
    found = []
    for number in range(pairs):
        if number % 2:
            second, first = b(seconds), a(seconds)
        else:
            first, second = a(seconds), b(seconds)
        found.append((first, second))
    return found


def evaluate(
    benchmark: Benchmark,
    alone: Sequence[float],
    found: Sequence[tuple[float, float]],
    control: Sequence[tuple[float, float]],
) -> Result:
    """The outcome of what was measured: of A alone, of pairs (A, B) and of pairs (A, A)."""
    if benchmark.b is None:
        return Result(benchmark, Spread(alone), None, Spread(alone), None)
    if benchmark.figure is Figure.DIFFERENCE:
        figures = [a - b for a, b in found]
    else:
        figures = [a / b for a, b in found]
    return Result(
        benchmark,
        Spread([a for a, _ in found]),
        Spread([b for _, b in found]),
        Spread(figures),
        Spread([a / twin for a, twin in control]),
    )
