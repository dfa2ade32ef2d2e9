"""A real Prometheus, as a child of the test, on a free port of the loopback interface."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import WAIT, eventually

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")

WINDOWS = {"5m": "5s", "15m": "10s", "30m": "6s", "1h": "8s", "2h": "8s", "6h": "10s", "1d": "12s", "3d": "15s"}
"""Ranges of the rules, and for how long a test can wait."""

FOR = "2s"
"""What all alerts wait for."""

_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: userprofile
    static_configs: [{{targets: ["{target}"]}}]
"""


def shortened(rules: str) -> str:
    """The rules, in a hurry: shorter ranges, and alerts that wait for less."""
    rules = re.sub(r"\[(\w+)\]", lambda match: f"[{WINDOWS[match[1]]}]", rules)
    return re.sub(r"^( +for:) \w+$", rf"\1 {FOR}", rules, flags=re.MULTILINE)


class Prometheus:
    """What it has scraped, and what it thinks of it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, what: str, **parameters: str) -> Any:
        """The data of a response of its API."""
        url = f"http://{self._address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with self._opener.open(url, timeout=WAIT) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[float]:
        """The values of all series of an instant query."""
        return [float(each["value"][1]) for each in self.get("query", query=expression)["result"]]

    def firing(self) -> set[tuple[str, str]]:
        """The names and severities of all alerts that fire."""
        alerts = self.get("alerts")["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"]["severity"]) for each in alerts if each["state"] == "firing"
        }

    def fires(self, *alerts: tuple[str, str]) -> None:
        """Waits until these alerts fire."""
        eventually(lambda: set(alerts) <= self.firing(), lambda: f"{alerts} fire, not only {self.firing()}")

    def is_quiet(self, *, but_for: Collection[tuple[str, str]] = ()) -> None:
        """Waits until no alert fires but those."""
        eventually(lambda: self.firing() <= set(but_for), lambda: f"nothing fires, not {self.firing()}")


@contextmanager
def prometheus(folder: Path, rules: Path, target: str) -> Iterator[Prometheus]:
    """Runs one that scrapes `target` each second, with the rules in a hurry."""
    assert PROMETHEUS, "Debian's package prometheus"
    folder.mkdir(parents=True)
    (folder / "rules.yaml").write_text(shortened(rules.read_text()))
    config, log = folder / "prometheus.yaml", folder / "log"
    config.write_text(_CONFIG.format(rules=folder / "rules.yaml", target=target))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"]
    with log.open("w") as output:
        process = subprocess.Popen([PROMETHEUS, *flags], stdout=output, stderr=output, cwd=folder)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return "Server is ready to receive web requests" in log.read_text()

    try:
        eventually(ready, lambda: f"it is ready: {log.read_text()}")
        found = re.search(r'msg="Listening on" .*address="?([\d.:]+)', log.read_text())
        assert found is not None
        yield Prometheus(found[1])
    finally:
        process.terminate()
        process.wait(WAIT)
