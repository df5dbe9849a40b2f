"""Bundles: mutated manifests, graphs and item lists; each is refused in words, or served."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.manifest import content_hash
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.isolated_check import check_bundle_isolated
from clickscore.stream.scoring.scorer import Scorer
from tests.export.foreign import ForeignGraph, build
from tests.fuzz.judge import FaultError, Outcomes
from tests.fuzz.mutation import ODD_TEXTS, encoded, mutated_bytes, mutated_record, odd_value
from tests.scored_requests import make_request

ITEMS = 12
FOREIGN_ITEMS = 20
TINY = ModelConfig(dim=8, layers=1, heads=1, ffn=8, max_length=6)
"""Shape of a model whose trial takes milliseconds."""

Check = Callable[[Path], list[str]]


@cache
def _good_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a good bundle."""
    made = folder / "good"
    write_random_bundle(made, ITEMS, TINY, candidates=5)
    files = {name: (made / name).read_bytes() for name in ("manifest.json", "model.onnx", "items.txt")}
    shutil.rmtree(made)
    return files


def fuzz_manifest(chance: random.Random, folder: Path, *, check: Check = check_bundle) -> Outcomes:
    """Check a bundle with a mutated manifest.

    Args:
        chance: Source of chance.
        folder: Folder for the bundle.
        check: Returns the problems of a bundle.
    """
    files = dict(_good_files(folder))
    manifest = json.loads(files["manifest.json"])
    manifest |= {name: value for name, value in _OPTIONAL.items() if chance.random() < 0.1}
    files["manifest.json"] = mutated_record(chance, manifest, 0.95)
    return _outcome(_write(folder, files), check)


_OPTIONAL: dict[str, Any] = {
    "training_data": "\x1b[2Jdata",
    "trained_until": 1_700_000_000_000,
    "metrics": {"hr": 0.5},
    "precision": "int8",
    "fidelity": {"beginnings": 10, "overlap": 0.99, "hr": 0.0, "mrr": 0.0},
    "popular": ["item-1", "item-2"],
    "lineage": ["0123"],
    "absent_heads": ["purchase"],
    "unfinished": "3 of 8 epochs",
    "every_event": True,
}


def fuzz_items(chance: random.Random, folder: Path) -> Outcomes:
    """Check a bundle with a mutated item list, whose hash the manifest states."""
    files = dict(_good_files(folder))
    lines = files["items.txt"].split(b"\n")
    for _ in range(chance.choice((1, 1, 3))):
        index = chance.randrange(len(lines))
        odd = chance.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
        lines[index] = chance.choice((odd, odd, lines[0], mutated_bytes(chance, lines[index] + b"x")))
    files["items.txt"] = b"\n".join(lines)
    return _outcome(_write(folder, _restated(files)), check_bundle)


def fuzz_graph(chance: random.Random, folder: Path) -> Outcomes:
    """Check a bundle with a mutated graph as `clickscore bundle check` does; the manifest states its hash."""
    files = dict(_good_files(folder))
    files["model.onnx"] = _mutated_graph(chance, files["model.onnx"])
    return _outcome(_write(folder, _restated(files)), check_bundle_isolated)


def fuzz_import(chance: random.Random, folder: Path) -> Outcomes:
    """Import a mutated graph of another framework; a bundle that comes out must be good."""
    from clickscore.export.import_onnx import import_bundle  # noqa: PLC0415 (needs the package onnx)

    model, items, out = folder / "foreign.onnx", folder / "foreign.txt", folder / "imported"
    graph = build(_foreign_graph(chance)).SerializeToString()
    model.write_bytes(graph if chance.random() < 0.4 else _mutated_graph(chance, graph))
    names = "".join(f"item-{number}\n" for number in range(1, FOREIGN_ITEMS + 1)).encode()
    items.write_bytes(names if chance.random() < 0.8 else mutated_bytes(chance, names))
    shutil.rmtree(out, ignore_errors=True)
    try:
        import_bundle(model, items, out, names={}, candidates=5, max_length=6, framework="fuzz", padding_column=False)
    except ClickscoreError as exc:
        return _refused(str(exc))
    if problems := check_bundle(out):
        raise FaultError(f"an imported bundle has problems: {problems}")
    return _outcome(out, check_bundle)


def _foreign_graph(chance: random.Random) -> ForeignGraph:
    """Return a graph of odd properties, which a worker may be able to serve."""
    odd: dict[str, tuple[Any, ...]] = {
        "table_rows": (FOREIGN_ITEMS, FOREIGN_ITEMS + 2),
        "extra_columns": (1, 2),
        "input_format": (6, 7, 1),
        "score_format": (1, 10, 11),
        "head_format": (1, 10, 11),
        "declared_input": ((1, "length"), ("batch", 6), (1, 6)),
        "declares_outputs": (False,),
        "purchase_axes": (0, 2),
        "action_columns": (0, 4),
        "score_axes": (3,),
        "positions": (3, 6, 50),
        "fixed_length": (6,),
        "fixed_batch": (True,),
        "action_codes": (3, 8),
        "lengths_axes": (2,),
        "score_factor": (float("nan"), float("inf"), 1e30),
        "purchase_offset": (2.0, float("nan")),
        "opset": (13, 18),
    }
    names = chance.sample(list(odd), chance.choice((0, 1, 1, 2)))
    return ForeignGraph(items=FOREIGN_ITEMS, **{name: chance.choice(odd[name]) for name in names})


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    for name, content in files.items():
        (bundle / name).write_bytes(content)
    return bundle


def _restated(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a bundle whose manifest states their hash."""
    manifest = json.loads(files["manifest.json"])
    manifest["content_hash"] = content_hash(files["model.onnx"], files["items.txt"])
    return files | {"manifest.json": json.dumps(manifest).encode()}


def _outcome(bundle: Path, check: Check) -> Outcomes:
    """Return whether a bundle is refused in words or served: a bundle without problems must score sessions.

    A graph that reads memory without values fails now and then; a worker refuses it at its start, in words.
    """
    problems = check(bundle)
    if problems:
        return _refused(*problems)
    try:
        loaded = load_bundle(bundle)
    except ClickscoreError as exc:
        raise FaultError(f"a bundle has no problems, and cannot be served: {exc}") from exc
    first, last = loaded.items[0], loaded.items[-1]
    requests = [make_request(first), make_request("unknown"), make_request(*([first, last] * 4))]
    try:
        scorer = Scorer(loaded)
    except BundleError as exc:
        return _refused(str(exc))
    scores = scorer.score(requests)
    if scores[0] is None or scores[2] is None:
        raise FaultError("a bundle without problems scores no session")
    return Counter({"served": 1})


def _refused(*problems: str) -> Outcomes:
    if not all(problem.strip() for problem in problems):
        raise FaultError("a bundle is refused without words")
    return Counter({"refused": 1})


def _mutated_graph(chance: random.Random, model: bytes) -> bytes:
    import onnx  # noqa: PLC0415 (of the test extra)

    if chance.random() < 0.25:
        return mutated_bytes(chance, model)
    proto = onnx.load_model_from_string(model)
    for _ in range(chance.choice((1, 1, 2))):
        chance.choice((_change_node, _change_node, _change_tensor, _change_value, _change_model))(chance, proto)
    try:
        return proto.SerializeToString()
    except Exception:  # noqa: BLE001 (a graph that cannot be written is no input)
        return mutated_bytes(chance, model)


OPERATORS = (
    "Identity",
    "Neg",
    "Cast",
    "Gather",
    "MatMul",
    "Softmax",
    "Reshape",
    "Loop",
    "If",
    "Fuzz",
    "Concat",
    "TopK",
)


def _change_node(chance: random.Random, proto: Any) -> None:
    node = chance.choice(proto.graph.node)
    kind = chance.random()
    if kind < 0.3:
        node.op_type = chance.choice(OPERATORS)
    elif kind < 0.5 and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(
            ("", "nowhere", node.output[0], *(other.output[0] for other in chance.sample(list(proto.graph.node), 2)))
        )
    elif kind < 0.7 and node.attribute:
        attribute = chance.choice(node.attribute)
        attribute.i = chance.choice((-1, 0, 1, 2**31, -(2**63), 2**63 - 1))
        attribute.ints[:] = chance.choice(([], [0], [-1, 2**40], list(range(50))))
    elif kind < 0.85:
        proto.graph.node.remove(node)
    else:
        proto.graph.node.add().CopyFrom(node)


def _change_tensor(chance: random.Random, proto: Any) -> None:
    tensor = chance.choice(proto.graph.initializer)
    kind = chance.random()
    if kind < 0.3:
        tensor.raw_data = mutated_bytes(chance, tensor.raw_data or b"\0\0\0\0")
    elif kind < 0.6 and tensor.dims:
        index = chance.randrange(len(tensor.dims))
        tensor.dims[index] = chance.choice((-1, 0, 1, tensor.dims[index] + 1, 2**31, 2**62))
    elif kind < 0.8:
        tensor.data_type = chance.choice((0, 1, 7, 8, 10, 11, 16, 99))
    elif kind < 0.9:
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", chance.choice(("/etc/passwd", "../items.txt", "items.txt", ""))
    else:
        tensor.name = chance.choice(("", "nowhere", "items"))


def _change_value(chance: random.Random, proto: Any) -> None:
    value = chance.choice((*proto.graph.input, *proto.graph.output))
    kind = chance.random()
    if kind < 0.3:
        value.name = chance.choice(("", "items", "rows", "more", "\x1b[2J"))
    elif kind < 0.6:
        value.type.tensor_type.elem_type = chance.choice((0, 1, 6, 7, 8, 10, 11, 99))
    elif value.type.tensor_type.shape.dim:
        dimension = chance.choice(value.type.tensor_type.shape.dim)
        dimension.dim_value = chance.choice((-1, 0, 1, 7, 2**40))


def _change_model(chance: random.Random, proto: Any) -> None:
    kind = chance.random()
    if kind < 0.4:
        proto.opset_import[0].version = chance.choice((-1, 0, 1, 7, 99, 2**40))
    elif kind < 0.6:
        proto.ir_version = chance.choice((-1, 0, 3, 99))
    elif kind < 0.8:
        proto.graph.output.remove(chance.choice(proto.graph.output))
    else:
        proto.producer_name = str(odd_value(chance))[:100].encode(errors="replace").decode()
        proto.metadata_props.add().key = encoded(chance, "\x1b[2J").decode()
