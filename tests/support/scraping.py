"""A server's metrics, fetched over HTTP and parsed by Prometheus' own parser."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The metrics of one HTTP response."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=5) as answer:
            self.text: str = answer.read().decode()
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sample with exactly these labels, or None."""
        return self.samples.get((name, frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have at least these labels."""
        return sum(
            value
            for (sample_name, sample_labels), value in self.samples.items()
            if sample_name == name and labels.items() <= sample_labels
        )

    def codes(self, method: str) -> dict[str, float]:
        """Return how many calls of a method ended with each status code."""
        return {
            dict(labels)["grpc_code"]: value
            for (name, labels), value in self.samples.items()
            if name == "grpc_server_handled_total" and ("grpc_method", method) in labels and value
        }


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> bool:
    """Wait until a condition holds, and return False if it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
