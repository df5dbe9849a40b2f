"""Refusals: a worker that cannot work says why in one line, and touches nothing."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from onnx import TensorProto, helper

from clickscore.schemas.manifest import OUTPUTS, Manifest, content_hash, decode_manifest, encode_manifest
from clickscore.schemas.topics import CATALOGUE, DEAD_LETTERS, MAX_RECORD_BYTES, RECOMMENDATIONS, SNAPSHOTS, Topic
from clickscore.stream.kafka.topics import delete_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.worker_process import free_port
from tests.integration.comparison import differing, gather_evidence, remembered
from tests.integration.event_log import event_log
from tests.integration.live import ROOT, Installation, Worker, installation

pytestmark = pytest.mark.kafka

EXIT_S = 40
SMALL_BYTES = 2_000
"""Less than what a batch comes to."""


@pytest.fixture
def live(broker: str, tmp_path: Path) -> Iterator[Installation]:
    with installation(broker, tmp_path) as running:
        yield running


@pytest.fixture
def spoiled(bundle: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to spoil."""
    return shutil.copytree(bundle, tmp_path / "spoiled")


def manifest_of(folder: Path) -> Manifest:
    return decode_manifest((folder / "manifest.json").read_bytes())


def edit(folder: Path, **fields: Any) -> None:
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest_of(folder), **fields)))


def remove_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def change_a_byte(folder: Path) -> None:
    items = folder / "items.txt"
    items.write_bytes(items.read_bytes().replace(b"item-1\n", b"item-0\n", 1))


def raise_format_version(folder: Path) -> None:
    edit(folder, format_version=99)


def cut_item_list(folder: Path) -> None:
    listed = (folder / "items.txt").read_bytes().splitlines(keepends=True)[:-1]
    (folder / "items.txt").write_bytes(b"".join(listed))
    edit(folder, content_hash=content_hash((folder / "model.onnx").read_bytes(), b"".join(listed)))


def fail_on_row(folder: Path, row: int) -> None:
    """Make the graph fail for a session with the item of a row, under a manifest that fits its bytes."""
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["purchase_of_model" if name == "purchase" else name for name in names]
    model.graph.node.extend(
        [
            helper.make_node("Constant", [], ["bad_row"], value_int=row),
            helper.make_node("Equal", ["items", "bad_row"], ["is_bad"]),
            helper.make_node("Cast", ["is_bad"], ["bad_index"], to=TensorProto.INT64),
            helper.make_node("Constant", [], ["one_zero"], value_floats=[0.0]),
            helper.make_node("Gather", ["one_zero", "bad_index"], ["zeros"]),  # index 1 is out of bounds
            helper.make_node("Constant", [], ["last_axis"], value_ints=[1]),
            helper.make_node("ReduceSum", ["zeros", "last_axis"], ["zero"], keepdims=0),
            helper.make_node("Add", ["purchase_of_model", "zero"], ["purchase"]),
        ]
    )
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    edit(folder, content_hash=content_hash(data, (folder / "items.txt").read_bytes()))


def replace_graph(folder: Path) -> None:
    """Put a graph there that answers with its input, under a manifest that fits its bytes."""
    tables = ("scores", "action_probabilities")
    nodes = [
        helper.make_node("Identity", ["items"], ["rows"]),
        *(helper.make_node("Cast", ["items"], [name], to=TensorProto.FLOAT) for name in tables),
        helper.make_node("Identity", ["scores"], ["purchase"]),
    ]
    dynamic_axes = ["batch", "length"]
    items = helper.make_tensor_value_info("items", TensorProto.INT64, dynamic_axes)
    outputs = [
        helper.make_tensor_value_info("rows", TensorProto.INT64, dynamic_axes),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, dynamic_axes) for name in tables),
        helper.make_tensor_value_info("purchase", TensorProto.FLOAT, dynamic_axes),
    ]
    graph = helper.make_graph(nodes, "spoiled", [items], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    (folder / "model.onnx").write_bytes(model)
    edit(
        folder,
        content_hash=content_hash(model, (folder / "items.txt").read_bytes()),
        inputs=tuple(tensor for tensor in manifest_of(folder).inputs if tensor.name == "items"),
        outputs=tuple(tensor for tensor in manifest_of(folder).outputs if tensor.name in OUTPUTS),
    )


def change_shape(folder: Path) -> None:
    replace_graph(folder)


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (shutil.rmtree, "it lacks manifest.json, model.onnx, items.txt"),
    "without a graph": (remove_graph, "it lacks model.onnx"),
    "of another hash": (change_a_byte, "the content hash of the files is"),
    "of another format version": (raise_format_version, "the format version is 99, this worker serves 1"),
    "of fewer items than it says": (cut_item_list, "items.txt has 299 lines, the manifest says 300"),
    "of another shape": (change_shape, "'purchase' is float32 of 2 axes, not float32 of 1 axes"),
}


def last_words(worker: Worker) -> str:
    assert worker.wait(EXIT_S) == 1, worker.output
    return worker.output.splitlines()[-1]


def admin(settings: Settings, work: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        await client.start()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def alter(settings: Settings, topic: Topic, bytes_taken: int) -> None:
    config = {**topic.config, "max.message.bytes": str(bytes_taken)}  # what is not named falls back to the default
    resource = ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topic(topic.name), config)
    admin(settings, lambda client: client.alter_configs([resource]))


def groups(settings: Settings) -> set[str]:
    return {name for name, *_ in admin(settings, lambda client: client.list_consumer_groups())}


# Bundles


@pytest.mark.parametrize("kind", SPOILED)
def test_worker_refuses_a_wrong_bundle_in_one_line_before_it_joins_the_group(
    kind: str, spoiled: Path, live: Installation
) -> None:
    spoil, words = SPOILED[kind]
    spoil(spoiled)
    worker = live.start_worker(bundle=str(spoiled))
    message = last_words(worker)
    assert message.startswith(f"clickscore: the bundle {spoiled} cannot be served: ")
    assert words in message
    assert len(worker.output.splitlines()) == 1
    assert live.settings.worker.group not in groups(live.settings)


def test_refusal_of_a_bundle_says_what_to_do(spoiled: Path, live: Installation) -> None:
    raise_format_version(spoiled)
    assert last_words(live.start_worker(bundle=str(spoiled))).endswith(
        "Export it again, or point --bundle at another one"
    )


def users_with_state(live: Installation) -> set[bytes]:
    """Return the users in the changelog; a partition's own record, with its first epoch, is there from the start."""
    return {record.key for records in live.read(SNAPSHOTS).values() for record in records if record.key}


def test_bug_that_an_event_meets_stops_the_worker_and_swallows_nothing(spoiled: Path, live: Installation) -> None:
    # The graph fails on one item in the middle of the list, which no check at the start runs.
    fail_on_row(spoiled, row=5)
    live.produce(event_log(200))
    worker = live.start_worker(bundle=str(spoiled))
    assert worker.wait(EXIT_S) == 1
    assert "out of data bounds" in worker.output
    assert live.committed() == {}
    assert not users_with_state(live)
    assert not any(live.read(DEAD_LETTERS).values())


# Topics


@pytest.mark.parametrize("topic", [SNAPSHOTS, CATALOGUE], ids=lambda topic: topic.name)
def test_worker_names_the_command_that_makes_a_missing_topic(topic: Topic, live: Installation) -> None:
    asyncio.run(delete_topics(live.settings.kafka, [topic]))
    missing = live.settings.kafka.topic(topic.name)
    assert last_words(live.start_worker()) == (
        f"clickscore: topics are missing: {missing}. Make them with `clickscore topics create`"
    )
    assert live.settings.worker.group not in groups(live.settings)


REFUSED = "clickscore: Kafka did not take what was published (MessageSizeTooLargeError"


def test_worker_stops_and_commits_nothing_where_the_decisions_topic_refuses(live: Installation) -> None:
    alter(live.settings, RECOMMENDATIONS, SMALL_BYTES)
    live.produce(event_log(3_000))
    message = last_words(live.start_worker())
    assert message.startswith(REFUSED)
    assert "Nothing of it is committed" in message
    assert live.committed() == {}
    assert not users_with_state(live)


@pytest.mark.parametrize(
    ("topic", "bytes_taken"), [(DEAD_LETTERS, 100), (SNAPSHOTS, SMALL_BYTES)], ids=["dead-letters", "snapshots"]
)
def test_nothing_is_lost_once_a_topic_that_refused_takes_records_again(
    topic: Topic, bytes_taken: int, live: Installation
) -> None:
    alter(live.settings, topic, bytes_taken)
    live.produce(event_log(3_000))
    assert last_words(live.start_worker()).startswith(REFUSED)
    alter(live.settings, topic, MAX_RECORD_BYTES)
    live.start_worker()
    live.wait_finished()
    evidence = gather_evidence(live)
    assert evidence.live.recommendations.keys() == evidence.replay.recommendations.keys()
    assert differing(evidence.live.recommendations, evidence.replay.recommendations) == []
    assert evidence.live.dead_letters.keys() == evidence.replay.dead_letters.keys()
    assert {number: remembered(state) for number, state in evidence.live.states.items()} == {
        number: remembered(state) for number, state in evidence.replay.states.items()
    }


# Brokers


def test_worker_waits_for_an_absent_broker_saying_so_and_gives_up_after_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    worker = Worker(Settings.of(bootstrap_servers=address, broker_wait_ms=5_000), tmp_path / "worker.log")
    words = last_words(worker)
    assert re.search(rf"Waiting for Kafka at {address}, \d s of 5 s: Connection refused", worker.output)
    assert words.startswith(f"clickscore: no Kafka broker answers at {address} (Connection refused), waited 5 s")
    assert words.endswith("or say where yours is with --bootstrap-servers")
    assert time.monotonic() - worker.started_at > 5


def test_worker_whose_broker_goes_away_as_it_starts_ends_with_a_clear_error(tmp_path: Path) -> None:
    # Beyond the wait for a broker, which nobody can time: as if it had answered and gone.
    port = free_port("127.0.0.1")
    program = (
        "from clickscore.stream.worker.app import run_worker; from clickscore.stream.pipeline import Pipeline;"
        "from clickscore.stream.settings import Settings;"
        "from clickscore.stream.reference.catalogue import Catalogue;"
        f"settings = Settings.of(bootstrap_servers='127.0.0.1:9', web_port={port});"
        "run_worker(settings, Pipeline(settings.sessions, settings.policy, 'clickstream-events', Catalogue()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=EXIT_S
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "clickscore.stream.errors.BrokerError: Kafka is gone again as the worker starts"
    )


# Ports


def test_worker_names_the_port_that_somebody_else_has(live: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        worker = live.start_worker(port=port)
        message = last_words(worker)
    assert message == (
        f"clickscore: /health and /metrics cannot be at 127.0.0.1:{port} (Address already in use): choose --web-port"
    )
