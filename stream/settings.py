"""Settings: every knob with its unit, read from flags, then `CLICKSCORE_*`, then a TOML file, then the default."""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from clickscore.schemas.topics import DAY_MS
from clickscore.stream.errors import SettingsError

MINUTE_MS = 60_000


def setting(default: Any, unit: str, what: str, *, secret: bool = False) -> Any:  # noqa: ANN401 (as dataclasses.field)
    """Declare a setting with its default, its unit and a sentence for `clickscore settings`."""
    return dataclasses.field(default=default, metadata={"unit": unit, "what": what, "secret": secret})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. Build it with `load`, which says where each value came from.

    Raises:
        SettingsError: Two settings contradict each other.
    """

    # Kafka
    bootstrap_servers: str = setting("127.0.0.1:9092", "host:port,...", "Kafka brokers to start from")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = setting(
        "PLAINTEXT", "name", "How to talk to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting("PLAIN", "name", "How to log in")
    sasl_username: str = setting("", "name", "User to log in as")
    sasl_password: str = setting("", "text", "Its password; better in the environment than in a flag", secret=True)
    ssl_cafile: str = setting("", "path", "Certificates to trust; the system's where empty")
    ssl_certfile: str = setting("", "path", "Our own certificate, where brokers ask for one")
    ssl_keyfile: str = setting("", "path", "Key of our own certificate")
    broker_wait_ms: int = setting(60_000, "ms", "How long to wait for a broker that is absent before giving up")
    topic_prefix: str = setting("", "text", "Put before every topic's name")
    partitions: int = setting(4, "count", "Partitions of each user-keyed topic, when topics are created")
    replication: int = setting(1, "count", "Copies of each partition, when topics are created")
    retention_ms: int = setting(7 * DAY_MS, "ms", "How long events and decisions are kept, when topics are created")

    # Sessions
    gap_ms: int = setting(30 * MINUTE_MS, "ms", "Silence that ends a session")
    lateness_ms: int = setting(5 * MINUTE_MS, "ms", "How far behind the newest event of its partition one may come")
    future_ms: int = setting(DAY_MS, "ms", "How far ahead of its append time an event may claim to be")
    max_events: int = setting(50, "events", "Newest events of a session that are remembered")
    max_bought: int = setting(50, "items", "Newest bought items of a user that are remembered")
    user_ttl_ms: int = setting(30 * DAY_MS, "ms", "Silence after which a user's bought items are forgotten")
    late_events: Literal["decide", "dead-letter"] = setting("decide", "name", "What a late event gets")
    max_event_bytes: int = setting(64 * 1024, "bytes", "Largest event that is decoded")
    popularity_refresh_ms: int = setting(5 * MINUTE_MS, "ms", "Event time between two looks at what is popular")

    # Scoring and policy
    bundle: str = setting("", "path", "The bundle to score with; popularity alone where empty")
    min_overlap: float = setting(
        0.99, "share", "Least share of the exact best 20 that a bundle quicker than exact has found; refused below it"
    )
    score_batch: int = setting(64, "sessions", "Sessions scored in one ONNX Runtime call, at most")
    score_threads: int = setting(1, "threads", "ONNX Runtime's intra-op threads")
    k: int = setting(10, "items", "Items in a recommendation")
    reasons: int = setting(
        0, "events", "Events of the session that an item names as what spoke most for it, at most; 0 for none"
    )
    experiment: str = setting("default", "text", "Name of the A/B test; another name deals the users anew")
    control_share: float = setting(0.0, "share", "Share of users who get popularity instead of the model")
    reserve: float = setting(0.0, "currency", "Lowest expected value (bid times purchase probability) of an ad shown")

    # Worker
    group: str = setting("clickscore", "text", "Consumer group: workers of one group share the partitions")
    instance_id: str = setting("", "text", "Fixed name of this worker in the group: a restart is then back at once")
    max_batch: int = setting(1024, "records", "Most records of a partition that are processed at once")
    gather_ms: int = setting(
        4, "ms", "How long a trickle gathers at the broker; twice as long where it is more than that"
    )
    commit_interval_ms: int = setting(1_000, "ms", "Time between two commits of finished offsets")
    session_timeout_ms: int = setting(6_000, "ms", "Silence after which the group gives a worker's partitions away")
    stop_ms: int = setting(8_000, "ms", "How long a stop may take to finish what has begun, before it is cut off")
    tick_after_ms: int = setting(MINUTE_MS, "ms", "Idle time after which a live partition gets a tick; 0 for never")
    web_host: str = setting("127.0.0.1", "host", "Where /metrics and /health listen")
    web_port: int = setting(6066, "port", "Port of /metrics and /health")

    def __post_init__(self) -> None:
        """Check what one field cannot know of another."""
        if self.gap_ms < self.lateness_ms:
            message = (
                f"gap_ms ({self.gap_ms}) must not be below lateness_ms ({self.lateness_ms}): "
                "a session could end before its events are in"
            )
            raise SettingsError(message)
        if self.user_ttl_ms < self.gap_ms:
            message = f"user_ttl_ms ({self.user_ttl_ms}) must not be below gap_ms ({self.gap_ms})"
            raise SettingsError(message)
        for name in ("control_share", "min_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                message = f"{name} is a share, from 0 to 1, not {getattr(self, name)}"
                raise SettingsError(message)
        if self.reasons < 0:
            message = f"reasons must be at least 0, not {self.reasons}"
            raise SettingsError(message)
        positive = (
            "partitions",
            "replication",
            "gap_ms",
            "max_events",
            "score_batch",
            "score_threads",
            "k",
            "max_batch",
        )
        for name in positive:
            if getattr(self, name) < 1:
                message = f"{name} must be at least 1, not {getattr(self, name)}"
                raise SettingsError(message)

    def topic(self, name: str) -> str:
        """Return a topic's name as this installation calls it."""
        return self.topic_prefix + name


FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(Settings)}
TYPES: dict[str, Any] = get_type_hints(Settings)

# Kafka's own variable, which other tools of a shop set already, counts where ours is not set.
_ALIASES = {"bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS"}


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and for each one where its value came from.

    Args:
        flags: Values from the command line; none where a flag was not given.
        environ: The environment; the process's own where none.
        file: A TOML file; else `CLICKSCORE_CONFIG`, else `clickscore.toml` if it is there.

    Raises:
        SettingsError: A value has the wrong type, a name is unknown, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    table, path = _read_file(file, environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in FIELDS:
        variable = f"CLICKSCORE_{name.upper()}"
        if flags and flags.get(name) is not None:
            values[name], origins[name] = flags[name], "flag"
        elif variable in environ:
            values[name], origins[name] = environ[variable], variable
        elif environ.get(_ALIASES.get(name, "")):
            values[name], origins[name] = environ[_ALIASES[name]], _ALIASES[name]
        elif name in table:
            values[name], origins[name] = table[name], str(path)
        else:
            origins[name] = "default"
        if name in values:
            values[name] = convert(name, values[name], origins[name])
    return Settings(**values), origins


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that give a child process the same settings."""
    return {f"CLICKSCORE_{name.upper()}": str(getattr(settings, name)) for name in FIELDS}


def _read_file(file: Path | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], Path | None]:
    named = file or (Path(environ["CLICKSCORE_CONFIG"]) if environ.get("CLICKSCORE_CONFIG") else None)
    path = named or Path("clickscore.toml")
    if not path.exists():
        if named:
            message = f"the settings file {path} does not exist"
            raise SettingsError(message)
        return {}, None
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        message = f"the settings file {path} cannot be read: {exc}"
        raise SettingsError(message) from exc
    unknown = sorted(set(table) - set(FIELDS))
    if unknown:
        message = f"unknown settings in {path}: {', '.join(unknown)} (see `clickscore settings`)"
        raise SettingsError(message)
    return table, path


def convert(name: str, value: Any, origin: str) -> Any:  # noqa: ANN401 (a setting has the type of its field)
    """Return a value in the type of its setting.

    Raises:
        SettingsError: It has another one; the message says where it came from.
    """
    kind = TYPES[name]
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        message = f"{name} (from {origin}) must be one of {', '.join(get_args(kind))}, not {value!r}"
        raise SettingsError(message)
    try:
        return kind(value)
    except (TypeError, ValueError) as exc:
        message = f"{name} (from {origin}) must be of type {kind.__name__}, not {value!r}"
        raise SettingsError(message) from exc
