"""The deployment files agree with the code: commands parse, stages exist, metrics are measured.

No container engine is needed: the compose file is held against the published schema
(compose-spec.json, from the Compose Specification, Apache-2.0).
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from tests.repository.command_line import check
from tests.servers.need import ROOT
from understudy.config import load

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "understudy-" in service["image"]]
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "understudy.json"
METRIC = re.compile(r"\bunderstudy_[a-z_]+")


def stages() -> dict[str, str]:
    """Stage -> what it is made from."""
    return {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.M)}


def test_the_compose_file_is_valid_by_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    # The project's name came into the specification after this copy of its schema.
    known = {key: value for key, value in COMPOSE.items() if key != "name"}
    jsonschema.Draft201909Validator(schema).validate(known)


@pytest.mark.parametrize("name", [name for name in OURS if "entrypoint" not in SERVICES[name]])
def test_every_command_of_the_compose_file_parses(name: str) -> None:
    check([re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in SERVICES[name]["command"]])


def test_every_service_finds_what_it_mounts_and_waits_for() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (ROOT / source).exists() if source[0] == "." else source in COMPOSE["volumes"]
            assert known, f"{name} mounts {source}"
        for other, condition in service.get("depends_on", {}).items():
            healthy = condition["condition"] != "service_healthy"
            assert healthy or "healthcheck" in SERVICES[other]


def test_every_image_of_ours_is_built_from_a_stage_and_ports_stay_on_loopback() -> None:
    builds = {s["image"]: s["build"]["target"] for s in SERVICES.values() if "build" in s}
    assert {SERVICES[name]["image"] for name in OURS} == builds.keys()
    assert set(builds.values()) <= stages().keys()
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_stages_copy_from_stages_and_only_the_parts_that_train_hold_torch() -> None:
    names = stages()
    for source in re.findall(r"(?:--from=|mount=from=)([a-z-]+)", DOCKERFILE):
        assert source in names
    for part in ("proxy", "collector", "trainer", "evaluator", "deploy"):
        body = DOCKERFILE.split(f" AS install-{part}\n")[1].split("\nFROM ")[0]
        assert re.findall(r"--extra (\w+)", body) == [part]
        assert "--require-hashes -c constraints.txt" in body
        assert f"--from=install-{part} " in DOCKERFILE.split(f" AS {part}\n")[1].split("\nFROM ")[0]


def test_the_containers_configuration_is_valid_and_names_services() -> None:
    config = load(ROOT / "deploy" / "docker" / "understudy.yaml")
    addresses = [
        config.kafka.bootstrap_servers if config.kafka else "",
        config.mlflow_uri or "",
        *(w.student.base_url for w in config.workloads.values() if w.student),
    ]
    hosts = {re.sub(r"^https?://", "", address).split(":")[0] for address in addresses}
    assert hosts <= SERVICES.keys()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The names that a running proxy exposes, histograms with their suffixes."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "understudy.yaml").write_text("teacher: {base_url: 'http://127.0.0.1:9/v1'}\n")
    proxy = subprocess.Popen(
        [sys.executable, "-m", "understudy", "proxy", "--listen", "127.0.0.1:0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert proxy.stdout
    address = proxy.stdout.readline().split()[-1]
    text = httpx.get(f"{address}/metrics", timeout=30).text
    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    yield {name for name, _ in families} | {
        name + suffix
        for name, kind in families
        if kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count")
    }
    proxy.send_signal(signal.SIGTERM)
    proxy.communicate(timeout=60)


@pytest.mark.parametrize("path", [DASHBOARD, ROOT / "deploy" / "prometheus" / "alerts.yml"])
def test_every_metric_of_dashboard_and_alerts_is_measured(path: Path, measured: set[str]) -> None:
    asked = set(METRIC.findall(path.read_text()))
    assert asked
    assert asked - measured == set()


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    source = yaml.safe_load(folder.read_text())["datasources"][0]
    panels = dashboard["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])
