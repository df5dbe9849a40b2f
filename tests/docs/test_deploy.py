"""The compose file and what it mounts could not be run: here they are held against the code."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.__main__ import cli
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.kafka.embedded import KAFKA_VERSION
from clickscore.stream.settings import SETTINGS, Settings
from clickscore.stream.worker.prometheus_metrics import Metrics
from docs.generate import PACKAGES, ROOT, metrics_table

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/clickscore.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
FILES = sorted(path for path in (ROOT / "deploy").rglob("*") if path.suffix in (".json", ".yml"))

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

_METRIC = re.compile(r"clickscore_[a-z_]+")


def metric_names() -> set[str]:
    """Every name under which a page of a worker or a gateway has a sample, or would have one once it counted."""
    names: set[str] = set()
    histograms: set[str] = set()
    for metrics in (Metrics(), GatewayMetrics()):
        names |= set(re.findall(r"`(clickscore_[a-z_]+)`", metrics_table(metrics)))
        histograms |= {family.name for family in metrics.registry.collect() if family.type == "histogram"}
    return names | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_parses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs/operations.md"], ids=lambda path: path.name)
def test_metrics_that_are_named_are_counted(path: Path) -> None:
    assert set(_METRIC.findall(path.read_text(encoding="utf-8"))) <= metric_names()


def test_dashboard_asks_the_datasource_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {source["uid"] for source in provisioned["datasources"]}
    targets = [target for panel in PANELS for target in panel["targets"]]
    assert targets
    assert {target["datasource"]["uid"] for target in targets} == uids


def test_dashboard_has_no_panel_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_dashboard_has_a_row_for_the_business_and_a_row_for_engineers() -> None:
    rows = {panel["title"]: panel["gridPos"]["y"] for panel in DASHBOARD["panels"] if panel["type"] == "row"}
    assert list(rows) == ["Business", "Engineering"]
    for start, end in ((rows["Business"], rows["Engineering"]), (rows["Engineering"], 10_000)):
        assert any(start < panel["gridPos"]["y"] < end for panel in PANELS)


def test_every_panel_has_a_unit_and_a_sentence() -> None:
    for panel in PANELS:
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in {"short", "cps", "reqps", "s", "ms", "percentunit"}, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] == "stat":
            assert defaults["thresholds"]["steps"][0]["value"] is None
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_variable_of_the_dashboard_is_a_label_that_is_used() -> None:
    labels = {
        family.name: set(getattr(metric, "_labelnames", ()))
        for metric in vars(Metrics()).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    }
    expressions = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        assert label in labels[metric.removesuffix("_total")] | {"instance"}  # Prometheus' own label
        assert f'{label}=~"${variable["name"]}"' in expressions


def test_dashboard_and_alerts_ask_in_promql() -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is in the dev extra")
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    expressions += [rule["expr"] for rule in ALERTS["groups"][0]["rules"]]
    for expression in expressions:
        parser.parse(expression.replace("$__rate_interval", "1m"))
    with pytest.raises(ValueError, match="parenthesis"):
        parser.parse("sum(up")


def test_every_alert_has_a_section_of_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    rules = ALERTS["groups"][0]["rules"]
    assert sections == [rule["alert"] for rule in rules]
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_alerts_say_what_happened() -> None:
    for rule in ALERTS["groups"][0]["rules"]:
        assert _METRIC.search(rule["expr"]) or rule["expr"].startswith("up{")
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_alerts_on_a_standstill_lost_events_and_missing_workers_need_no_former_sample() -> None:
    rules = {rule["alert"]: rule["expr"] for rule in ALERTS["groups"][0]["rules"]}
    assert Metrics().registry.get_sample_value("clickscore_events_total", {"outcome": "lost"}) == 0
    assert "sum(rate(clickscore_events_total[5m])) == 0" in rules["ClickscoreStandsStill"]
    assert "unless clickscore_events_total" in rules["ClickscoreLostEvents"]
    assert 'absent(up{job="clickscore"})' in rules["ClickscoreWorkerDown"]


def test_prometheus_scrapes_the_port_of_the_workers() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["worker"]
    assert found["port"] == Settings().worker.web_port
    assert job["job_name"] in (ROOT / "deploy/alerts.yml").read_text()


# Compose


def test_every_service_is_hardened_and_bounded() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert any(path.split(":")[0] == "/tmp" for path in service["tmpfs"]), name
        assert not service.get("privileged"), name
        assert not service.get("cap_add"), name


def test_ports_are_open_on_loopback_only() -> None:
    for service in COMPOSE["services"].values():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:")


def test_kafka_is_the_version_of_the_embedded_broker() -> None:
    assert COMPOSE["services"]["kafka"]["image"].split("@")[0] == f"apache/kafka:{KAFKA_VERSION}"


def test_kafka_takes_record_batches_as_large_as_the_topics() -> None:
    assert COMPOSE["services"]["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"] == MAX_RECORD_BYTES


def test_environment_names_settings() -> None:
    environment = COMPOSE["services"]["worker"]["environment"]
    assert {name.removeprefix("CLICKSCORE_").lower() for name in environment} <= set(SETTINGS)


@pytest.mark.parametrize("name", ["topics", "worker", "tools"])
def test_service_runs_a_command_that_there_is(name: str) -> None:
    command = COMPOSE["services"][name]["command"]
    context = cli.make_context("clickscore", list(command), resilient_parsing=True)
    with context:
        if command[0] in cli.list_commands(context):
            _, found, rest = cli.resolve_command(context, list(command))
            assert isinstance(found, click.Command)
            found.make_context(str(found.name), rest, parent=context, resilient_parsing=True)


def test_worker_waits_for_topics_and_topics_for_kafka() -> None:
    services = COMPOSE["services"]
    assert services["worker"]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_what_is_mounted_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = str(volume).split(":", 1)[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source


# The image


def test_dockerfile_copies_what_is_there_and_what_the_context_has() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if re.match("COPY (?!--from)", line) for name in line.split()[1:-1]]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == kept
    for name in copied:
        assert (ROOT / name).exists()


def test_image_has_the_folders_of_every_package() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(PACKAGES) <= set(copied)


def test_images_run_as_somebody_without_rights_and_serve_without_torch_and_java() -> None:
    text = (ROOT / "Dockerfile").read_text()
    build, serving, training, default = re.split(r"^FROM .*\n", text, flags=re.MULTILINE)[1:]
    assert default == ""  # `docker build .` makes the image of workers and gateways
    for stage in (serving, training):
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1] == "clickscore"
    assert "torch" not in build + serving
    assert "requirements-training.txt" not in build + serving
    assert "[train" not in text
    assert "[broker" not in text
    assert "--require-hashes" in text


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("make test")
