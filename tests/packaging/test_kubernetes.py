"""Kubernetes and systemd: the chart is rendered by Helm's own code, and its objects are held against the schemas."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clickscore.stream.__main__ import cli
from clickscore.stream.settings import SETTINGS, Settings
from docs.generate import ROOT

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is in the dev extra")
pytest.importorskip("helm_python", reason="helm-python-sdk is in the dev extra")

from deploy.render import HEAD, MANIFESTS, render  # noqa: E402 (needs helm_python)

OLDEST, NEWEST = "1.27.0", "1.37.0"
"""Versions of Kubernetes whose schemas must accept the objects; the oldest is that of the chart."""
CUSTOM = {"ScaledObject", "PodMonitor"}
"""Kinds of operators: Kubernetes itself has no schema for them."""
EVERYTHING = {
    "kafka": {"bootstrapServers": "kafka-0:9093,kafka-1:9093", "existingSecret": "login", "caSecret": "authority"},
    "settings": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "topic_prefix": "shop-"}
    | {"gap_ms": 1_800_000, "trace_share": 0.25, "log_format": "text"},
    "credentialsSecret": "storage",
    "bundle": {"store": "s3://shop/bundles", "claim": "bundles", "path": "/bundles/new"},
    "image": {"repository": "shop/clickscore", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "worker": {"nodeSelector": {"pool": "fast"}, "tolerations": [{"key": "pool", "operator": "Exists"}]},
    "retraining": {"enabled": True, "image": "shop/clickscore-train:1", "arguments": ["--min-sessions=500"]},
    "networkPolicy": {
        "gatewayFrom": [{"podSelector": {"matchLabels": {"app": "web"}}}],
        "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "podMonitor": True,
    "gatewayMetricsSecret": "gateway-admin",
}
VALUES = {
    "defaults": {},
    "everything": EVERYTHING,
    "keda": {**EVERYTHING, "autoscaling": {"kind": "keda", "triggerAuthentication": "kafka"}},
    "hpa": {"autoscaling": {"kind": "hpa"}},
    "workers alone": {"gateway": {"enabled": False}, "topics": {"create": False}, "networkPolicy": {"enabled": False}},
}
KEDA_CHECK = """
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
new ScaledObject(JSON.parse(readFileSync(0))).validate();
"""
KEDA_PACKAGES = ("@kubernetes-models/keda@0.4.2", "@kubernetes-models/base@5.0.1")

each_set_of_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(render(values)) if found]


def find(values: dict[str, Any], kind: str, name: str = "clickscore-worker") -> dict[str, Any]:
    (found,) = [thing for thing in objects(values) if (thing["kind"], thing["metadata"]["name"]) == (kind, name)]
    return found


def pods(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and specification of every pod."""
    for thing in objects(values):
        spec = thing.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            yield thing["metadata"]["name"], template["spec"]


def environment(values: dict[str, Any]) -> dict[str, str]:
    return find(values, "ConfigMap", "clickscore-settings")["data"]


@each_set_of_values
def test_objects_have_the_schemas_of_the_oldest_and_the_newest_kubernetes(values: dict[str, Any]) -> None:
    made = objects(values)
    assert made
    for thing in made:
        if thing["kind"] not in CUSTOM:
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(thing, version, strict=True)


def test_field_that_kubernetes_does_not_know_is_found() -> None:
    thing = find({}, "Deployment")
    thing["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, NEWEST, strict=True)


def test_plain_manifests_are_those_of_the_chart() -> None:
    assert MANIFESTS.read_text(encoding="utf-8") == HEAD + render({}), "stale: `python deploy/render.py` writes it anew"


@each_set_of_values
def test_every_pod_is_hardened_and_bounded(values: dict[str, Any]) -> None:
    for name, pod in pods(values):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name


@each_set_of_values
def test_every_pod_runs_a_command_that_there_is(values: dict[str, Any]) -> None:
    with cli.make_context("clickscore", ["--help"], resilient_parsing=True) as context:
        for _, pod in pods(values):
            (container,) = pod["containers"]
            assert container["args"][0] in {*cli.list_commands(context), "retrain"}


def test_variables_are_settings_and_give_them_values() -> None:
    variables = environment(EVERYTHING)
    secrets = {variable["name"] for _, pod in pods(EVERYTHING) for variable in pod["containers"][0]["env"]}
    names = {name.removeprefix("CLICKSCORE_").lower() for name in {*variables, *secrets}}
    assert names <= SETTINGS.keys()
    settings = Settings.of(**{name.removeprefix("CLICKSCORE_").lower(): value for name, value in variables.items()})
    assert settings.kafka.sasl_mechanism == "SCRAM-SHA-512"
    assert settings.worker.web_host == "0.0.0.0"
    assert (settings.sessions.gap_ms, settings.worker.trace_share) == (1_800_000, 0.25)


@each_set_of_values
def test_no_name_is_twice_in_an_object(values: dict[str, Any]) -> None:
    for text in render(values).split("\n---\n"):
        if "kind: ConfigMap" in text:
            names = re.findall(r"^ +(\w+):", text.partition("data:")[2], re.MULTILINE)
            assert len(names) == len(set(names))


def test_autoscaler_has_whole_numbers() -> None:
    values = {"autoscaling": {"kind": "keda", "lagPerWorker": 2_000_000}}
    assert find(values, "ScaledObject")["spec"]["triggers"][0]["metadata"]["lagThreshold"] == "2000000"


def test_topics_are_made_beside_the_workers_which_are_not_ready_without_them() -> None:
    for thing in objects(EVERYTHING):
        assert "annotations" not in thing["metadata"], "a hook waits for ready pods"
    assert find({}, "Job", "clickscore-topics-1")


def test_no_password_is_in_an_object() -> None:
    assert {name for name, setting in SETTINGS.items() if setting.secret} >= {"sasl_password"}
    for name, setting in SETTINGS.items():
        if setting.secret:
            assert f"CLICKSCORE_{name.upper()}" not in environment(EVERYTHING)
    (container,) = dict(pods(EVERYTHING))["clickscore-worker"]["containers"]
    assert all(set(variable["valueFrom"]) == {"secretKeyRef"} for variable in container["env"])


def test_probes_ask_pages_that_there_are() -> None:
    source = (ROOT / "stream/worker/app.py").read_text(encoding="utf-8")
    (container,) = dict(pods({}))["clickscore-worker"]["containers"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container[name]["httpGet"]
        assert f'"{probe["path"]}": ' in source
        assert probe["port"] in {port["name"] for port in container["ports"]}
    assert container["ports"][0]["containerPort"] == Settings().worker.web_port


@each_set_of_values
def test_selectors_find_their_pods(values: dict[str, Any]) -> None:
    made = objects(values)
    labels = [thing["spec"]["template"]["metadata"]["labels"] for thing in made if thing["kind"] == "Deployment"]
    for thing in made:
        spec = thing.get("spec", {})
        selector = {
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(thing["kind"])
        if selector:
            assert any(selector(spec).items() <= found.items() for found in labels), thing["metadata"]["name"]


def test_network_policy_lets_workers_reach_kafka_and_names_alone() -> None:
    policy = find({}, "NetworkPolicy", "clickscore")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in policy["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 9092]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_gateways_are_scraped_with_a_key_and_are_no_workers_to_the_alerts() -> None:
    workers, gateways = [found["spec"] for found in objects(EVERYTHING) if found["kind"] == "PodMonitor"]
    assert workers["jobLabel"] == "app.kubernetes.io/name"
    assert "jobLabel" not in gateways
    (endpoint,) = gateways["podMetricsEndpoints"]
    (container,) = dict(pods(EVERYTHING))["clickscore-gateway"]["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    assert endpoint["authorization"]["credentials"] == {"name": "gateway-admin", "key": "key"}


@pytest.mark.parametrize("kind", ["keda", "hpa"])
def test_autoscaler_sets_the_number_of_workers(kind: str) -> None:
    values = VALUES[kind]
    assert "replicas" not in find(values, "Deployment")["spec"]
    scaler = find(values, "ScaledObject" if kind == "keda" else "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "clickscore-worker"


def test_keda_reads_the_lag_of_the_group_and_the_topic() -> None:
    (trigger,) = find(VALUES["keda"], "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Settings().worker.group
    assert trigger["metadata"]["topic"] == "shop-clickstream-events"


def install_keda(folder: Path) -> None:
    """Install Keda's schemas; skip the test where no package registry answers."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *KEDA_PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's package registry does not answer")
    if any(code in done.stderr for code in ("ENOTFOUND", "ETIMEDOUT", "ECONNREFUSED", "EAI_AGAIN")):
        pytest.skip("npm's package registry cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_keda_takes_its_object() -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm on this machine")
    folder = ROOT / "build" / "keda"
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install_keda(folder)
    (folder / "check.mjs").write_text(KEDA_CHECK)
    good = find(VALUES["keda"], "ScaledObject")
    for thing, is_valid in ((good, True), ({**good, "spec": {"minReplicaCount": "two"}}, False)):
        done = subprocess.run(
            ["node", "check.mjs"],
            cwd=folder,
            input=json.dumps(thing),
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) == is_valid, done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"autoscaling": {"kind": "lag"}}, "none, keda or hpa"),
        ({"retraining": {"enabled": True}}, "docker build --target training"),
        ({"settings": {"web_port": 7000}}, "set worker.port instead of settings.web_port"),
        ({"settings": {"GATEWAY_PORT": 7000}}, "set gateway.port instead of settings.GATEWAY_PORT"),
        ({"settings": {"web_host": "127.0.0.1"}}, "remove settings.web_host"),
    ],
)
def test_wrong_value_is_refused_with_a_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        render(values)


# systemd

UNIT = ROOT / "deploy" / "systemd" / "clickscore-worker@.service"
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # The program is where pip has put it on the machine of the worker; systemd looks whether it is there.
    text = UNIT.read_text(encoding="utf-8").replace("/opt/clickscore/bin/clickscore", shutil.which("true") or "")
    unit = tmp_path / "clickscore-worker@1.service"
    unit.write_text(text)
    for command in (["verify", "--man=no"], ["security", "--offline=yes", "--threshold=25"]):
        done = subprocess.run(
            ["systemd-analyze", *command, str(unit)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr


def test_unit_names_settings_and_a_command() -> None:
    text = UNIT.read_text(encoding="utf-8")
    names = set(re.findall(r"CLICKSCORE_([A-Z_]+)=", text))
    assert {name.lower() for name in names} <= {*SETTINGS, "config"}
    assert "/opt/clickscore/bin/clickscore worker --web-port" in text
    stop_ms = Settings().worker.stop_ms
    assert int(re.findall(r"TimeoutStopSec=(\d+)", text)[0]) * 1000 > stop_ms
