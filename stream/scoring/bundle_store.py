"""Bundle store: keep bundles under their content hash, in a folder or in any storage that fsspec opens.

    STORE/<content hash>/model.onnx
    STORE/<content hash>/items.txt
    STORE/<content hash>/manifest.json     written last: a folder without a manifest is an unfinished push
    STORE/policies/<label>.toml            policies of rollouts

A stored bundle never changes, so a version names the same scores on every machine.
"""

import contextlib
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import fsspec
import msgspec

from clickscore.model.packaged_bundle import resolve_folder
from clickscore.schemas.manifest import Manifest, decode_manifest
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.isolated_check import check_bundle_isolated

MANIFEST = "manifest.json"
FILES = ("model.onnx", "items.txt", MANIFEST)
"""Files of a bundle, in the order of a push."""

POLICIES = "policies"
"""Folder of the policies in a store."""
_VERSION = re.compile("[0-9a-f]{6,64}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]*@[0-9a-f]+")
MAX_MANIFEST_BYTES = 16 * 2**20
"""Largest manifest that is read from a store, bytes: a manifest has some kilobytes."""


class StoredBundle(NamedTuple):
    """A bundle in a store."""

    manifest: Manifest
    pushed_at: float
    """Time of the push, seconds since the epoch; 0 where the storage does not know it."""


class BundleStore:
    """Bundles in a folder or at an fsspec URL, such as `s3://bucket/bundles`.

    Raises:
        BundleError: Every method raises it where the storage cannot be opened, read or written.
    """

    def __init__(self, url: str, check: Callable[[Path], list[str]] = check_bundle_isolated) -> None:
        """Open the store.

        Args:
            url: Folder, or a URL of fsspec. A folder is made by the first push.
            check: Returns the problems of the bundle in a folder.
        """
        self._check = check
        self._name = _without_password(url)
        with self._storage_errors():
            opened: tuple[Any, str] = fsspec.url_to_fs(url)
            self._files, self._root = opened

    def push(self, folder: Path) -> Manifest:
        """Check a bundle, copy it into the store, and return its manifest. A second push changes nothing.

        Args:
            folder: Folder of the bundle; `demo` is the packaged bundle.

        Raises:
            BundleError: The bundle cannot be served, or the store has another manifest under the same content hash.
        """
        folder = resolve_folder(folder)
        if problems := self._check(folder):
            problem_list = "; ".join(problems)
            message = f"the bundle {folder} cannot be served: {problem_list}. Export it again"
            raise BundleError(message)
        contents = {name: (folder / name).read_bytes() for name in FILES}
        manifest = decode_manifest(contents[MANIFEST])
        with self._storage_errors():
            stored = self._read(manifest.content_hash)
            if stored is None:
                self._files.makedirs(self._path(manifest.content_hash), exist_ok=True)
                for name, content in contents.items():
                    self._files.pipe_file(self._path(manifest.content_hash, name), content)
            elif stored.manifest != manifest:
                message = (
                    f"the bundle store {self._name} already has {manifest.version} with another manifest. "
                    "Stored bundles do not change: export the model again, so that it gets a version of its own"
                )
                raise BundleError(message)
        return manifest

    def list_bundles(self) -> list[StoredBundle]:
        """Return the stored bundles, the newest push first. Unfinished pushes are left out."""
        with self._storage_errors():
            if not self._files.exists(self._root):
                return []
            folders: list[str] = self._files.ls(self._root, detail=False)
            names = [posixpath.basename(folder.rstrip("/")) for folder in folders]
            bundles = [bundle for name in names if (bundle := self._read(name)) is not None]
        return sorted(bundles, key=lambda bundle: (-bundle.pushed_at, bundle.manifest.content_hash))

    def find(self, version: str) -> StoredBundle:
        """Return the bundle of a version.

        Args:
            version: At least 6 digits from the start of the content hash; decisions state 12.

        Raises:
            BundleError: No stored bundle has this version, or more than one has.
        """
        valid = _VERSION.fullmatch(version) is not None
        matches = [bundle for bundle in self.list_bundles() if bundle.manifest.content_hash.startswith(version)]
        if not valid or len(matches) != 1:
            problem = "has several bundles that begin with" if valid and matches else "has no bundle"
            message = (
                f"the bundle store {self._name} {problem} {version!r}. "
                "Give 6 to 64 digits of a version that `clickscore bundle list` shows"
            )
            raise BundleError(message)
        return matches[0]

    def fetch(self, version: str, folder: Path) -> Path:
        """Copy a bundle out of the store and return its folder, `folder/<content hash>`.

        A copy that exists already is checked and used. An interrupted copy leaves no folder behind.

        Args:
            version: At least 6 digits of the content hash.
            folder: Folder of the copies; it is made if it is missing.

        Raises:
            BundleError: The version is unknown, or the copy differs from its content hash.
        """
        manifest = self.find(version).manifest
        target = folder / manifest.content_hash
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
                copy = Path(temporary, "bundle")
                copy.mkdir()
                with self._storage_errors():
                    for name in FILES:
                        self._files.get_file(self._path(manifest.content_hash, name), str(copy / name))
                with contextlib.suppress(OSError):  # another process has made the same copy meanwhile
                    copy.rename(target)
        if problems := self._check(target):
            shutil.rmtree(target)
            message = (
                f"{manifest.version} in the bundle store {self._name} is damaged: {problems[0]}. "
                "Remove its folder from the store and push the bundle again"
            )
            raise BundleError(message)
        return target

    def push_policy(self, label: str, text: bytes) -> None:
        """Put the text of a policy into the store. A label has the content hash, so a stored policy never changes.

        Args:
            label: Version and content hash of the policy.
            text: The policy file.
        """
        with self._storage_errors():
            self._files.makedirs(self._path(POLICIES), exist_ok=True)
            self._files.pipe_file(self._path(POLICIES, f"{label}.toml"), text)

    def read_policy(self, label: str) -> bytes:
        """Return the text of a stored policy.

        Raises:
            BundleError: The store has no such policy.
        """
        if not _LABEL.fullmatch(label):
            message = f"{label!r} is no label of a policy"
            raise BundleError(message)
        with self._storage_errors():
            text: bytes = self._files.cat_file(self._path(POLICIES, f"{label}.toml"))
        return text

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._root, *parts)

    def _read(self, name: str) -> StoredBundle | None:
        """Return the bundle in a folder of the store, or None for a folder that is no finished bundle."""
        path = self._path(name, MANIFEST)
        if not self._files.exists(path):
            return None
        description: dict[str, Any] = self._files.info(path)
        content: bytes = self._files.cat_file(path, end=MAX_MANIFEST_BYTES)
        try:
            manifest = decode_manifest(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return StoredBundle(manifest, _seconds(description)) if manifest.content_hash == name else None

    @contextlib.contextmanager
    def _storage_errors(self) -> Generator[None]:
        """Turn every error of the storage into a BundleError: each kind of storage raises errors of its own."""
        try:
            yield
        except BundleError:
            raise
        except Exception as exc:
            message = f"the bundle store {self._name} cannot be used: {str(exc) or type(exc).__name__}"
            raise BundleError(message) from exc


def _seconds(description: dict[str, Any]) -> float:
    """Return the time of a file's last change, seconds since the epoch; storages name and type it differently."""
    time: Any = description.get("mtime") or description.get("LastModified") or description.get("created") or 0
    to_seconds: Callable[[], float] | None = getattr(time, "timestamp", None)
    return float(to_seconds() if to_seconds else time)


def _without_password(url: str) -> str:
    """Return a URL without user and password, for messages."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
