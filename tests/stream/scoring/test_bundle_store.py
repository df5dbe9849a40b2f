"""Bundle store: a bundle goes in, stays as it is, and comes out with the same bytes."""

import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from clickscore.model.packaged_bundle import DEMO_FOLDER
from clickscore.schemas.manifest import decode_manifest, encode_manifest
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import FILES, BundleStore
from tests.bundles import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(str(tmp_path / "store"), check_bundle)


def test_a_bundle_comes_out_with_the_same_bytes(store: BundleStore, bundle: Path, tmp_path: Path) -> None:
    manifest = store.push(bundle)
    copy = store.fetch(manifest.version, tmp_path / "copies")
    assert copy == tmp_path / "copies" / manifest.content_hash
    assert [(copy / name).read_bytes() for name in FILES] == [(bundle / name).read_bytes() for name in FILES]
    assert store.fetch(manifest.content_hash, tmp_path / "copies") == copy
    assert [path.name for path in copy.parent.iterdir()] == [manifest.content_hash]


def test_the_storage_may_be_any_that_fsspec_opens(bundle: Path, tmp_path: Path) -> None:
    store = BundleStore("memory://shop/bundles", check_bundle)
    assert store.list_bundles() == []
    version = store.push(bundle).version
    assert [stored.manifest.version for stored in store.list_bundles()] == [version]
    assert store.list_bundles()[0].pushed_at > 0
    assert (store.fetch(version, tmp_path) / "items.txt").read_bytes() == (bundle / "items.txt").read_bytes()


def test_a_policy_comes_out_with_the_same_bytes(store: BundleStore) -> None:
    store.push_policy("autumn-3@1a2b3c4d", b"k = 5")
    assert store.read_policy("autumn-3@1a2b3c4d") == b"k = 5"
    assert store.list_bundles() == []
    with pytest.raises(BundleError, match="cannot be used"):
        store.read_policy("winter-1@1a2b3c4d")
    with pytest.raises(BundleError, match="is no label of a policy"):
        store.read_policy("../secret@1a2b3c4d")


def test_a_second_push_changes_nothing(store: BundleStore, bundle: Path) -> None:
    store.push(bundle)
    pushed_at = store.list_bundles()[0].pushed_at
    store.push(bundle)
    assert [stored.pushed_at for stored in store.list_bundles()] == [pushed_at]


def test_a_stored_bundle_keeps_its_manifest(store: BundleStore, bundle: Path, tmp_path: Path) -> None:
    store.push(bundle)
    changed = Path(shutil.copytree(bundle, tmp_path / "changed"))
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    other = msgspec.structs.replace(manifest, popular=("item-9",))
    (changed / "manifest.json").write_bytes(encode_manifest(other))
    with pytest.raises(BundleError, match="another manifest"):
        store.push(changed)


def test_a_bundle_that_cannot_be_served_is_not_stored(store: BundleStore, bundle: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    (broken / "items.txt").write_text("another\n")
    with pytest.raises(BundleError, match="content hash"):
        store.push(broken)
    assert store.list_bundles() == []


def test_an_interrupted_push_is_no_bundle_and_is_completed_by_the_next(
    store: BundleStore, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store" / store.push(bundle).content_hash
    (folder / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes()[:50])
    (tmp_path / "store" / "notes.txt").write_text("not a bundle")
    assert store.list_bundles() == []
    store.push(bundle)
    assert len(store.list_bundles()) == 1


def test_a_damaged_bundle_does_not_come_out(store: BundleStore, bundle: Path, tmp_path: Path) -> None:
    version = store.push(bundle).content_hash
    (tmp_path / "store" / version / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"is damaged: the content hash .* push the bundle again"):
        store.fetch(version, tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("version", ["", "ab", "../../etc", "0" * 12, "F" * 12])
def test_an_unknown_version_is_named(store: BundleStore, bundle: Path, version: str) -> None:
    store.push(bundle)
    with pytest.raises(BundleError, match="no bundle"):
        store.find(version)


@pytest.mark.parametrize("url", ["nonsense://bucket/bundles", "/proc/version/bundles"])
def test_a_storage_that_cannot_be_used_is_an_error_in_words(url: str, bundle: Path) -> None:
    with pytest.raises(BundleError, match="cannot be used"):
        BundleStore(url, check_bundle).push(bundle)


def test_no_error_shows_the_password_of_a_url() -> None:
    with pytest.raises(BundleError) as raised:
        BundleStore("nonsense://anna:secret@host/bundles")
    assert "secret" not in str(raised.value)
    assert "nonsense://host/bundles" in str(raised.value)


@pytest.mark.slow
def test_commands_push_list_show_and_fetch(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["bundle", *arguments, "--bundle-store", str(tmp_path / "store")])
        assert result.exit_code == 0, result.output
        return result.output

    version = decode_manifest((DEMO_FOLDER / "manifest.json").read_bytes()).version
    assert run("push", "demo") == f"{version} is in the bundle store\n"
    assert run("list").startswith(f"{version}  pushed 2")
    assert run("show", version[:6]).startswith(f"{version}, made with")
    folder = run("fetch", version, "--out", str(tmp_path / "copies")).strip()
    assert CliRunner().invoke(cli, ["bundle", "check", folder]).exit_code == 0


def test_without_a_store_the_command_says_how_to_name_one() -> None:
    result = CliRunner().invoke(cli, ["bundle", "list"])
    assert result.exit_code == 1
    assert "--bundle-store" in str(result.exception)
