"""Tests with a real Prometheus: it scrapes servers, and has values for its alerts and queries."""

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
import trustme
import yaml
from mnist37_client import Client, validation_images
from support.deployment import ALERTS, PROMETHEUS
from support.following import Server
from support.pages import ROOT
from support.scraping import wait_until

SAMPLES = 4  # the number of scrapes before the queries, enough for a rate

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Debian's package prometheus"
)


def queries() -> list[str]:
    """Return the queries in docs/operations.md."""
    block = re.search(r"```promql\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def selectors(expression: str) -> list[str]:
    """Return the metrics of an expression, with what they are selected by."""
    return re.findall(r"(?:mnist37_|grpc_server_|process_)\w+(?:\{[^}]*\})?", expression)


class Prometheus:
    """A Prometheus process with the stack's configuration, except the targets and the interval."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        content = (ROOT / "docker/prometheus.yml").read_text()
        content = re.sub(r"targets: .*", f"targets: {json.dumps(targets)}", content)
        content = content.replace("alerts.yaml", str(ROOT / ALERTS))
        content, names = re.subn(r"    dns_sd_configs:.*\n.*\n", "", content)
        assert names == 1
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
        self.url = f"http://{address[1]}/api/v1"

    def query(self, query: str) -> list[dict[str, Any]]:
        """Run a query and return its result.

        Raises:
            HTTPError: the query is invalid.
        """
        result: list[dict[str, Any]] = self._get(f"query?query={urllib.parse.quote(query)}")[
            "result"
        ]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules that Prometheus has read."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Return a Prometheus that has scraped a server and a follower with TLS a few times."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    metrics = ("--metrics-address", "127.0.0.1:0")
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with (
        Server(*metrics, "--state", str(tmp_path / "state")) as server,
        Server(*metrics, "--follow", server.address, *tls) as follower,
    ):
        urls = (each.metrics_url for each in (server, follower))
        prometheus = Prometheus(tmp_path, [url.split("/")[2] for url in urls])
        try:
            with Client(server.address) as client:
                client.step()

                def has_scraped() -> bool:
                    client.predict(validation_images()[0][0])
                    counts = prometheus.query('count_over_time(up{job="mnist37"}[5m])')
                    return len(counts) == 2 and all(
                        float(count["value"][1]) >= SAMPLES for count in counts
                    )

                assert wait_until(has_scraped, 60)
            yield prometheus
        finally:
            prometheus.process.terminate()
            prometheus.process.wait()


def test_every_query_of_the_page_has_an_answer(prometheus: Prometheus) -> None:
    assert queries()
    for query in queries():
        assert prometheus.query(query), query
    assert [each["value"][1] for each in prometheus.query("up")] == ["1", "1"]


def test_every_alert_has_values_and_is_silent_while_all_is_well(prometheus: Prometheus) -> None:
    alerts = yaml.safe_load((ROOT / ALERTS).read_text())["groups"]
    names = [rule["alert"] for group in alerts for rule in group["rules"]]
    rules = {rule["name"]: rule for rule in prometheus.rules()}
    assert sorted(rules) == sorted(names)
    for name, rule in rules.items():
        for selector in selectors(rule["query"]):
            answered = re.sub(r"\{grpc_code=~.*\}", "", selector)  # no call has failed
            assert prometheus.query(answered), f"{name}: {selector}"
        assert rule["state"] == "inactive", name
        assert rule["health"] in ("ok", "unknown"), rule  # unknown: it is not its turn yet


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_takes_the_stacks_files(tmp_path: Path) -> None:
    for name in (PROMETHEUS, ALERTS):
        shutil.copy(ROOT / name, tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / Path(PROMETHEUS).name)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    test = (Path(__file__).parent / "alerts.yaml").read_text()
    for rule in re.findall(r"alert: (\w+)", (ROOT / ALERTS).read_text()):
        assert f'alertname="{rule}"' in test
    file = tmp_path / "test.yaml"
    file.write_text(test.replace("RULES", str(ROOT / ALERTS)))
    process = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
