"""What a server tells Prometheus, asked over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One answer."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=5) as answer:
            self.text: str = answer.read().decode()
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, by all of its labels; None where there is none."""
        return self.samples.get((name, frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, and others."""
        wanted = labels.items()
        return sum(v for (n, has), v in self.samples.items() if n == name and wanted <= has)

    def codes(self, method: str) -> dict[str, float]:
        """How often calls of a method ended with each code."""
        return {
            dict(labels)["grpc_code"]: value
            for (name, labels), value in self.samples.items()
            if name == "grpc_server_handled_total" and ("grpc_method", method) in labels and value
        }


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether it does within some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
