"""Tests with a real Prometheus: it scrapes the server and answers the queries in operations.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from support.scraping import wait_until

ROOT = Path(__file__).parents[2]
SAMPLES = 4  # the number of scrapes before the queries, enough for a rate

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Debian's package prometheus"
)


def queries() -> list[str]:
    """Return the queries in docs/operations.md, those of alerts without their thresholds."""
    block = re.search(r"```promql\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    assert block is not None
    return [re.sub(r" (==|>) [\d.]+$", "", line) for line in block[1].splitlines()]


class Prometheus:
    """A Prometheus process with the stack's configuration, except the target and the interval."""

    def __init__(self, folder: Path, target: str) -> None:
        content = (ROOT / "docker/prometheus.yml").read_text()
        content = re.sub(r"targets: .*", f'targets: ["{target}"]', content)
        config = folder / "prometheus.yml"
        config.write_text(content.replace("scrape_interval: 5s", "scrape_interval: 200ms"))
        log = folder / "log"
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        assert wait_until(lambda: "Listening on" in log.read_text(), 30), log.read_text()
        address = re.search(r'msg="Listening on" address=(\S+)', log.read_text())
        assert address is not None
        self.url = f"http://{address[1]}/api/v1/query?query="

    def query(self, query: str) -> list[dict[str, Any]]:
        """Run a query and return its result.

        Raises:
            HTTPError: the query is invalid.
        """
        with urllib.request.urlopen(self.url + urllib.parse.quote(query), timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Return a Prometheus that has scraped a working server a few times."""
    with LocalServer("--metrics-address", "127.0.0.1:0", "--state", str(tmp_path)) as server:
        assert server.process.stdout is not None
        target = server.process.stdout.readline().split("//")[1].split("/")[0]
        prometheus = Prometheus(tmp_path, target)
        try:
            with Client(server.address) as client:
                client.step()

                def has_scraped() -> bool:
                    client.predict(validation_images()[0][0])
                    count = prometheus.query('count_over_time(up{job="mnist37"}[5m])')
                    return bool(count) and float(count[0]["value"][1]) >= SAMPLES

                assert wait_until(has_scraped, 30)
            yield prometheus
        finally:
            prometheus.process.terminate()
            prometheus.process.wait()


def test_every_query_of_the_page_has_an_answer(prometheus: Prometheus) -> None:
    assert len(queries()) > 4
    for query in queries():
        assert prometheus.query(query), query
    assert prometheus.query("up")[0]["value"][1] == "1"
