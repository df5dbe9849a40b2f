"""Arms: the sides of a backtest, each a bundle or a baseline with its own settings, from flags or a TOML file."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from clickscore.model.packaged_bundle import DEMO
from clickscore.schemas.toml_text import parse_toml
from clickscore.stream.errors import PolicyError, SettingsError
from clickscore.stream.policy.policy_file import SHIPPED_POLICIES, PolicyFile, configured_policy
from clickscore.stream.policy.shelf_plan import make_shelf_plan
from clickscore.stream.replay.reference_files import NO_FILES, ReferenceFiles
from clickscore.stream.settings import Settings

Baseline = Literal["popularity", "co-occurrence", "repeat"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

PATHS = ("bundle", "policy", *ReferenceFiles._fields)
"""Keys of an arm whose values are paths."""
MAX_ARMS = 50  # the columns take about 10 bytes per event and arm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a backtest."""

    name: str
    settings: Settings
    """All settings of the arm, including the common settings."""
    baseline: Baseline | None = None
    """Baseline in place of a bundle; None for a bundle."""
    reference: ReferenceFiles = NO_FILES
    """Catalogue and campaigns of the arm; without files, those that all arms share."""

    @functools.cached_property
    def policy_file(self) -> PolicyFile:
        """Policy of the arm."""
        return configured_policy(self.settings)

    @property
    def k(self) -> int:
        """Number of items in the shortest list of the arm: a plain list, or the main shelf of a page."""
        policy_file, settings = self.policy_file, self.settings.policy
        pages = msgspec.structs.asdict(policy_file.pages)
        del pages["impression"]  # impressions are not judged
        lists = [[make_shelf_plan(policy_file, name, settings) for name in names] for names in pages.values()]
        mains = [next((plan for plan in plans if plan and plan.job != "sponsored"), None) for plans in lists]
        return min(main.size if main else policy_file.size(settings) for main in mains)

    @property
    def recommender_key(self) -> str:
        """Key of the recommender: arms with equal sessions and equal keys share scores."""
        return f"baseline {self.baseline}" if self.baseline else f"bundle {self.settings.scoring.bundle}"

    def differences(self, base: Settings) -> dict[str, str]:
        """Return the settings and files of the arm that replace the common ones, except the bundle."""
        common, own = base.values, self.settings.values
        names = ("policy", *base.deciding("items"))
        changed = {name: str(own[name]) for name in names if own[name] != common[name]}
        return changed | {name: str(path) for name, path in self.reference._asdict().items() if path}


def arm_settings(base: Settings) -> tuple[str, ...]:
    """Return the settings that an arm may change: bundle, policy, and all that decide on recommendations."""
    return ("bundle", "policy", *base.deciding("items"))


def make_arm(table: Mapping[str, Any], base: Settings, location: str) -> Arm:
    """Return the arm of a table.

    Args:
        table: Keys `name`, `bundle` or `baseline`, `catalogue` and `campaigns` (files), and settings.
        base: Common settings, for the keys absent in the table.
        location: Description of the table's place, for messages.

    Raises:
        SettingsError: A key is unknown, a value is wrong, a key is missing, or two keys contradict each other.
    """
    names = arm_settings(base)
    files = ReferenceFiles._fields
    unknown = sorted(set(table) - {"name", "baseline", *files, *names})
    if unknown:
        allowed = ", ".join(("name", "baseline", *names, *files))
        message = f"{location}: an arm has no {', '.join(unknown)}; it may have {allowed}"
        raise SettingsError(message)
    name, baseline = table.get("name"), table.get("baseline")
    if not isinstance(name, str) or not name.strip():
        message = f"{location}: an arm needs a name"
        raise SettingsError(message)
    location = f"{location}, arm {name!r}"
    if baseline is not None and baseline not in BASELINES:
        message = f"{location}: baseline must be one of {', '.join(BASELINES)}, not {baseline!r}"
        raise SettingsError(message)
    if baseline and table.get("bundle"):
        message = f"{location}: it has a bundle and a baseline; remove one of the two"
        raise SettingsError(message)
    if not (baseline or table.get("bundle") or base.scoring.bundle):
        message = f"{location}: it needs a bundle, or a baseline ({', '.join(BASELINES)})"
        raise SettingsError(message)
    changes = {key: base.declared[key].convert(value, location) for key, value in table.items() if key in names}
    if baseline:
        changes["bundle"] = ""
    try:
        settings = base.replace(**changes)
    except SettingsError as exc:
        message = f"{location}: {exc}"
        raise SettingsError(message) from exc
    reference = ReferenceFiles(*(_make_path(table, key, location) for key in files))
    arm = Arm(name=name.strip(), settings=settings, baseline=baseline, reference=reference)
    try:
        _ = arm.policy_file  # a wrong policy is refused before the replay
    except PolicyError as exc:
        message = f"{location}: {exc}"
        raise SettingsError(message) from exc
    return arm


def _make_path(table: Mapping[str, Any], key: str, location: str) -> Path | None:
    """Return the path of a file in an arm's table; None where the table names no file.

    Args:
        table: Table of the arm.
        key: Key of the file.
        location: Description of the table's place, for messages.

    Raises:
        SettingsError: The value is no path.
    """
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        message = f"{location}: {key} must be the path of a file, not {value!r}"
        raise SettingsError(message)
    return Path(value) if value else None


def parse_arm(text: str, base: Settings) -> Arm:
    """Return the arm of an option: `name=NAME,SETTING=VALUE,...`.

    Raises:
        SettingsError: The text does not describe an arm.
    """
    table: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            message = f"--arm {text!r}: {part!r} is no KEY=VALUE"
            raise SettingsError(message)
        table[key.strip()] = value.strip()
    return make_arm(table, base, f"--arm {text!r}")


def read_arms(path: Path, base: Settings) -> list[Arm]:
    """Return the arms of a TOML file, each a table `[[arm]]`; paths are relative to the file's folder.

    Raises:
        SettingsError: The file cannot be read, or has other keys than `[[arm]]`.
    """
    try:
        document = parse_toml(path.read_bytes())
    except (OSError, ValueError) as exc:
        message = f"the arms file {path} cannot be read: {exc}"
        raise SettingsError(message) from exc
    tables = document.pop("arm", [])
    if document:
        message = (
            f"{path}: {', '.join(sorted(document))} is no [[arm]]; what all arms share goes into flags or --config"
        )
        raise SettingsError(message)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        message = f"{path}: it holds no arms; write each as a table [[arm]]"
        raise SettingsError(message)
    return [
        make_arm(_resolve_paths(table, path.parent), base, f"{path}, [[arm]] {number}")
        for number, table in enumerate(tables, start=1)
    ]


def _resolve_paths(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a table with paths behind the folder of the arms file; names of shipped bundles and policies stay."""
    names = ("", DEMO, *SHIPPED_POLICIES)
    return {
        key: str(folder / value) if key in PATHS and isinstance(value, str) and value not in names else value
        for key, value in table.items()
    }


def baseline_arms(base: Settings) -> list[Arm]:
    """Return an arm for each baseline, with the baseline's name."""
    return [make_arm({"name": name, "baseline": name}, base, "baselines") for name in BASELINES]


def bundle_arms(folders: Iterable[Path], base: Settings) -> list[Arm]:
    """Return an arm for each bundle, with the folder's name."""
    return [make_arm({"name": path.resolve().name, "bundle": str(path)}, base, f"--bundle {path}") for path in folders]


def validate_arms(arms: Sequence[Arm]) -> Sequence[Arm]:
    """Return the arms after a check of their number and names.

    Raises:
        SettingsError: No arm is left, too many arms are given, or two arms have the same name.
    """
    repeated = [name for name, count in Counter(arm.name for arm in arms).items() if count > 1]
    if repeated:
        names = ", ".join(map(repr, repeated))
        message = f"two arms are called {names}: give one another name, as in --arm name=NAME,bundle=DIR"
        raise SettingsError(message)
    if not 1 <= len(arms) <= MAX_ARMS:
        excess = "many" if arms else "few"
        message = f"{len(arms)} arms are too {excess}: name 1 to {MAX_ARMS} with --bundle, --arm or --arms"
        raise SettingsError(message)
    return arms
