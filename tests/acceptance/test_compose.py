"""docker-compose.yml through whole jobs: each service's real command, user, environment, secrets and health check."""

import json
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import compose
import golden
import pytest
from commands import PATIENCE, wait_until
from machines import machine, missing
from places import REPOSITORY

from ecgbatch.models.config import NetworkConfig
from ecgbatch.records.synthetic import write_archive


@pytest.fixture
def services(tmp_path: Path) -> Iterator[compose.Services]:
    """The services of the file, with passwords and an archive."""
    if reason := missing(*compose.TOOLS):
        pytest.skip(reason)
    write_archive(tmp_path / "archive")
    subprocess.run([REPOSITORY / "deploy/make-passwords", tmp_path / "secrets"], check=True, capture_output=True)
    for name in ("owner", "database", "redis", "flower"):
        (tmp_path / "secrets" / name).write_text(f"of any:/@?#%41 '\"\\$character {name}")
    with machine("compose") as here:
        yield compose.Services(tmp_path, {"ARCHIVE": str(tmp_path / "archive"), "PROCESSES": "1"}, here)


def test_jobs_before_and_after_an_upgrade(services: compose.Services) -> None:
    """Of a database that an earlier version has left, with a model of our own after it, as docs/operations.md says."""
    with ExitStack() as stack:
        start_servers(services, stack)
        owners = OWNERS + urllib.parse.quote((services.folder / "secrets/owner").read_text())
        services.run_python(f"make_older(Database({owners!r}), '0003')")
        services.run("schema")
        worker, *_ = (stack.enter_context(services.running(name)) for name in ("worker", "flower", "metrics"))
        services.run("ecgbatch", "enqueue", "/archive")
        services.run("ecgbatch", "status", "--watch")
        for name in ("worker", "flower", "metrics"):
            wait_until(lambda name=name: services.healthy(name))  # type: ignore[misc]

        worker.send_signal(signal.SIGTERM)  # docker compose stop worker && docker compose up --detach
        assert worker.wait(PATIENCE) == 0
        services.run("schema")
        stack.enter_context(services.running("worker"))
        checkpoint = services.folder / "mine.ckpt"
        golden.write_checkpoint(checkpoint, golden.golden_weights(NetworkConfig("stacked", 64, 4, 1)))
        add = ("model", "add", "/mine.ckpt", "--name", "mine", "--version", "1")
        services.run("ecgbatch", *add, volume=f"{checkpoint}:/mine.ckpt:ro")
        services.run("ecgbatch", "model", "use", "mine:1")
        services.run("ecgbatch", "enqueue", "/archive")
        services.run("ecgbatch", "status", "--watch")
        found = services.run("ecgbatch", "query", "--json", "--sql", BY_MODEL)
        assert json.loads(found[found.index("[") : found.rindex("]") + 1]) == [
            {"model": "m", "of_archive": 0, "n": 2},
            {"model": "mine", "of_archive": 64, "n": 64},
            {"model": "xlstm-ecg", "of_archive": 64, "n": 64},
        ]
        assert "Traceback" not in services.log("worker").read_text()


OWNERS = "postgresql://ecgbatch_owner@127.0.0.1/ecgbatch?password="
BY_MODEL = """
SELECT model, COUNT(CASE WHEN path LIKE 'synthetic%' THEN 1 END) AS of_archive, COUNT(*) AS n
FROM results GROUP BY model ORDER BY model
"""


@pytest.mark.chaos
def test_each_panel_of_the_dashboard_shows_something(services: compose.Services) -> None:
    """Prometheus as the file starts it asks `metrics`, while a job goes on, and answers what Grafana would ask it."""
    if reason := missing("prometheus"):
        pytest.skip(f"{reason} (apt-get install prometheus)")
    dashboard = json.loads((REPOSITORY / "deploy/grafana/dashboards/ecgbatch.json").read_text())
    (services.folder / "archive/broken.hea").write_text("nonsense")
    (services.folder / "archive/RECORDS").unlink()
    with ExitStack() as stack:
        start_servers(services, stack)
        services.run("schema")
        services.run("ecgbatch", "enqueue", "/archive")
        for name in ("worker", "metrics", "prometheus"):
            stack.enter_context(services.running(name))
        services.run("ecgbatch", "status", "--watch", status=3)
        waiting = {panel["title"]: panel["targets"][0]["expr"] for panel in dashboard["panels"]}
        assert len(waiting) == 10

        def all_answered() -> bool:
            for title, query in list(waiting.items()):
                if answer := ask_prometheus(services, f"query?{urllib.parse.urlencode({'query': query})}")["result"]:
                    print(title, *((each["metric"], each["value"][1]) for each in answer))
                    del waiting[title]
            return not waiting

        wait_until(all_answered)
        groups = ask_prometheus(services, "rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}


def ask_prometheus(services: compose.Services, question: str) -> Any:
    """The data of an answer of its interface."""
    ask = f"print(urlopen('http://127.0.0.1:9090/api/v1/{question}').read().decode())"
    line = [*services.inside, sys.executable, "-c", f"from urllib.request import urlopen; {ask}"]
    done = subprocess.run(line, capture_output=True, text=True)
    return json.loads(done.stdout)["data"] if done.returncode == 0 else {"result": [], "groups": []}


def start_servers(services: compose.Services, stack: ExitStack) -> None:
    services.run("passwords")
    for name in ("redis", "postgresql"):
        stack.enter_context(services.running(name))
    for name in ("redis", "postgresql"):
        wait_until(lambda name=name: services.healthy(name))  # type: ignore[misc]
