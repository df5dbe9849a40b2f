"""Settings in six groups: each setting with default, bounds, unit and meaning, and the source of each value.

A flag comes first, then `CLICKSCORE_*` in the environment, then a TOML file, then the default. Names are flat for
users (`--gap-ms`, `CLICKSCORE_GAP_MS`, `gap_ms = ...`) and unique over the groups. Functions take only the groups in
use.

A new setting is a field of a group. `decides` says whether the setting belongs to the identity of a replay, and whether
an arm of a backtest may change the setting: every setting of sessions, policy and scoring decides by default.
"""

import difflib
import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

import msgspec
import xxhash

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.field_types import MAX_BID
from clickscore.schemas.seen_items import MAX_SEEN
from clickscore.schemas.toml_text import parse_toml
from clickscore.stream.errors import SettingsError

Decides = Literal["items", "records", "nothing"]
"""Part of the output that depends on a setting.

* items: the recommended items. The setting belongs to a run's identity, and arms of a backtest may change the setting.
* records: another part of a record (an id, an ad, a reason). The setting belongs to a run's identity.
* nothing: every value of the setting gives the same records.
"""


class Setting(NamedTuple):
    """Declaration of a setting."""

    name: str
    annotated: Any
    """Type with bounds, for the check by msgspec."""
    kind: Any
    """Type without the bounds: str, int, float or a Literal."""
    default: Any
    unit: str
    sentence: str
    """Meaning, for `clickscore settings`, `--help` and the docs."""
    decides: Decides
    secret: bool
    """Whether the value is hidden when settings are shown."""
    former_name: str | None
    """Earlier name, still accepted."""

    @property
    def variable(self) -> str:
        """Environment variable of the setting."""
        return f"CLICKSCORE_{self.name.upper()}"

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed values, empty where any value of the type is allowed."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def allowed(self) -> str:
        """Allowed values in words, for error messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        (meta,) = self.annotated.__metadata__
        bounds = (
            "" if meta.ge is None else f" of at least {meta.ge}" if meta.le is None else f" from {meta.ge} to {meta.le}"
        )
        return {int: "a whole number", float: "a number", str: "text"}[self.kind] + bounds

    def convert(self, value: Any, origin: str = "") -> Any:  # noqa: ANN401 (a setting has the type of its field)
        """Return a value in the setting's type.

        Args:
            value: A value of the type, or its text as in the environment.
            origin: Source of the value, for the error message; empty where code passes the value.

        Raises:
            SettingsError: The value has another type or is out of bounds.
        """
        # Python's own reading of text also takes ` 5 ` and `1_000`; msgspec checks type and bounds.
        is_text = isinstance(value, str) or self.kind is str
        try:
            return msgspec.convert(self.kind(value) if is_text and not self.choices else value, self.annotated)
        except (ValueError, msgspec.ValidationError) as exc:
            source = f" (from {origin})" if origin else ""
            message = f"{self.name}{source} must be {self.allowed}, not {value!r}"
            raise SettingsError(message) from exc


def setting(
    unit: str,
    sentence: str,
    *,
    ge: int | None = None,
    le: int | None = None,
    decides: Decides | None = None,
    secret: bool = False,
    former_name: str | None = None,
) -> msgspec.Meta:
    """Declare a setting; the default is the default of the field.

    Args:
        unit: Unit of the value: ms, bytes, items, share, ...
        sentence: Meaning, for `clickscore settings`, `--help` and the docs.
        ge: Smallest allowed value.
        le: Largest allowed value.
        decides: Part of the output that depends on the setting; by default the group's `decides`.
        secret: Whether the value is hidden when settings are shown.
        former_name: Earlier name, still accepted as flag, variable and TOML key.
    """
    extra = {"unit": unit, "decides": decides, "secret": secret, "former_name": former_name}
    return msgspec.Meta(ge=ge, le=le, description=sentence, extra=extra)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings."""

    decides: ClassVar[Decides] = "nothing"
    """Part of the output that depends on a setting of the group, unless the setting says otherwise."""


class KafkaSettings(Group, frozen=True, kw_only=True):
    """How to reach Kafka, and how topics are named and created."""

    bootstrap_servers: Annotated[
        str, setting("host:port,...", "Addresses of Kafka brokers for the first connection")
    ] = "127.0.0.1:9092"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        setting("name", "Protocol of the connection to the brokers"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], setting("name", "Login method of the SASL protocols")
    ] = "PLAIN"
    sasl_username: Annotated[str, setting("name", "User name of the SASL login")] = ""
    sasl_password: Annotated[
        str,
        setting("text", "Password of the SASL login; other users of the machine can read a flag", secret=True),
    ] = ""
    ssl_cafile: Annotated[str, setting("path", "File of trusted CA certificates; empty for the system's own")] = ""
    ssl_certfile: Annotated[str, setting("path", "Client certificate, for brokers that ask for one")] = ""
    ssl_keyfile: Annotated[str, setting("path", "Private key of the client certificate")] = ""
    schema_registry: Annotated[
        str,
        setting(
            "URL", "Schema registry with Confluent's API, for `clickscore relay` of Avro and Protobuf; empty for none"
        ),
    ] = ""
    schema_registry_username: Annotated[str, setting("name", "User name of the schema registry")] = ""
    schema_registry_password: Annotated[
        str,
        setting("text", "Password of the schema registry; other users of the machine can read a flag", secret=True),
    ] = ""
    isolation_level: Annotated[
        Literal["read_committed", "read_uncommitted"],
        setting(
            "name",
            "Whether records of aborted and open transactions are left out, or read like all others",
            decides="records",
        ),
    ] = "read_committed"
    broker_wait_ms: Annotated[
        int, setting("ms", "How long to wait for a broker that cannot be reached before giving up", ge=0)
    ] = 60_000
    # The topic's name is part of every decision's id.
    topic_prefix: Annotated[str, setting("text", "Prefix of every topic's name", decides="records")] = ""
    partitions: Annotated[
        int, setting("count", "Partitions of each user-keyed topic, when topics are created", ge=1)
    ] = 4
    replication: Annotated[int, setting("count", "Copies of each partition, when topics are created", ge=1)] = 1
    # Kafka reads -1 as "for ever".
    retention_ms: Annotated[
        int, setting("ms", "How long Kafka keeps events and decisions, when topics are created", ge=-1)
    ] = 7 * DAY_MS

    def topic(self, name: str) -> str:
        """Return the full name of a topic: the prefix and the name."""
        return self.topic_prefix + name


class SessionSettings(Group, frozen=True, kw_only=True):
    """End of sessions, accepted events, and limits of the remembered state.

    Raises:
        SettingsError: Two settings contradict each other.
    """

    decides: ClassVar[Decides] = "items"

    gap_ms: Annotated[int, setting("ms", "Time without an event after which a session ends", ge=1)] = 30 * MINUTE_MS
    lateness_ms: Annotated[
        int, setting("ms", "How far an event may lie behind the newest event of its partition before it is late", ge=0)
    ] = 5 * MINUTE_MS
    future_ms: Annotated[
        int,
        setting("ms", "How far an event may lie ahead of its append time before it becomes a dead letter", ge=0),
    ] = 5 * MINUTE_MS
    # A backfill appends old events now, so a default limit would refuse it.
    past_ms: Annotated[
        int,
        setting(
            "ms",
            "How far an event may lie behind its append time before it becomes a dead letter; 0 for any age",
            ge=0,
        ),
    ] = 0
    max_events: Annotated[int, setting("events", "Newest events of a session that are remembered", ge=1)] = 50
    max_bought: Annotated[int, setting("items", "Newest bought items of a user that are remembered", ge=0)] = 50
    # Each impression writes the user's state once more, so nothing is counted unless a policy needs the counts.
    max_seen: Annotated[
        int,
        setting(
            "items",
            "Newest shown items of a session whose impressions are counted, for `hide.seen` of a policy; 0 for none",
            ge=0,
            le=MAX_SEEN,
        ),
    ] = 0
    user_ttl_ms: Annotated[
        int, setting("ms", "Time without an event after which a user's bought items are forgotten", ge=1)
    ] = 30 * DAY_MS
    late_events: Annotated[
        Literal["decide", "dead-letter"],
        setting("name", "Whether a late event gets a decision or becomes a dead letter"),
    ] = "decide"
    max_event_bytes: Annotated[
        int, setting("bytes", "Largest event that is decoded; a larger one becomes a dead letter", ge=1)
    ] = 64 * 1024
    popularity_refresh_ms: Annotated[
        int, setting("ms", "Event time between two updates of the list of popular items", ge=1)
    ] = 5 * MINUTE_MS
    consent_personalisation: Annotated[
        Literal["granted", "withdrawn"],
        setting("name", "Consent to personalisation of a user who never said anything"),
    ] = "granted"
    consent_ads: Annotated[
        Literal["granted", "withdrawn"],
        setting("name", "Consent to ads by behaviour of a user who never said anything", decides="records"),
    ] = "granted"
    consent_training: Annotated[
        Literal["granted", "withdrawn"],
        setting("name", "Consent to training of a user who never said anything", decides="records"),
    ] = "granted"
    machines: Annotated[
        Literal["apart", "counted"],
        setting("name", "Whether bots and agents count in popularity and closed sessions, as shoppers do"),
    ] = "apart"
    # 13 months: the longest time for which the French regulator lets a choice on cookies hold.
    consent_ttl_ms: Annotated[
        int, setting("ms", "How long what a user said about consent holds; then the user has said nothing", ge=1)
    ] = 395 * DAY_MS

    def __post_init__(self) -> None:
        """Check the rules on pairs of settings."""
        if self.gap_ms < self.lateness_ms:
            message = (
                f"gap_ms ({self.gap_ms}) must not be below lateness_ms ({self.lateness_ms}): "
                "a session could end before its events are in"
            )
            raise SettingsError(message)
        if self.user_ttl_ms < self.gap_ms:
            message = (
                f"user_ttl_ms ({self.user_ttl_ms}) must not be below gap_ms ({self.gap_ms}): "
                "a user would be forgotten within a session"
            )
            raise SettingsError(message)


class PolicySettings(Group, frozen=True, kw_only=True):
    """Size of a recommendation, A/B test and ads."""

    decides: ClassVar[Decides] = "items"

    # A run's identity and its epochs have the label of the policy, since a path does not say what is in the file.
    policy: Annotated[
        str,
        setting(
            "name or path",
            "Policy: default, strict, discovery, no-ads, shelves, or the path of a policy file (.toml)",
            decides="nothing",
        ),
    ] = "default"
    k: Annotated[int, setting("items", "Items in a recommendation, unless the policy file says how many", ge=1)] = 10
    # A reason is written beside an item and moves no item.
    reasons: Annotated[
        int,
        setting(
            "events",
            "Session events named as reasons of each item, at most, unless the policy file says how many; 0 for none",
            ge=0,
            decides="records",
        ),
    ] = 0
    experiment: Annotated[str, setting("text", "Name of the A/B test; changing it re-randomises the users")] = "default"
    control_share: Annotated[
        float, setting("share", "Share of users who get popular items instead of the model's", ge=0, le=1)
    ] = 0.0
    # Ads alone depend on the reserve.
    reserve: Annotated[
        float,
        setting(
            "currency",
            "Lowest expected value of an ad's impression (bid * probability * quality), unless the policy has another",
            ge=0,
            le=int(MAX_BID),
            decides="records",
        ),
    ] = 0.0


class ScoringSettings(Group, frozen=True, kw_only=True):
    """Bundle for the scores, and ONNX Runtime."""

    decides: ClassVar[Decides] = "items"

    # A run's identity has the bundle's version, since a folder's path does not say what is in it.
    bundle: Annotated[
        str,
        setting(
            "path",
            "Folder of the bundle that scores, or demo for the packaged one; empty to recommend by popularity alone",
            decides="nothing",
        ),
    ] = ""
    bundle_store: Annotated[
        str,
        setting(
            "path or URL",
            "Folder of the bundle store, or its URL for fsspec, such as s3://bucket/bundles",
            decides="nothing",
        ),
    ] = ""
    # Epochs name the bundles themselves.
    rollout: Annotated[
        str,
        setting(
            "text",
            "Name of the rollout that says which bundles of the bundle store decide; without a store there is none",
            decides="nothing",
        ),
    ] = "default"
    # A bundle is refused or not; its scores are the same.
    min_overlap: Annotated[
        float,
        setting(
            "share",
            "Minimum recall@20 of a quantised bundle against its fp32 graph; a bundle below it is refused",
            ge=0,
            le=1,
            decides="nothing",
        ),
    ] = 0.99
    # A session's scores are bit-identical whatever else is in its batch.
    score_batch: Annotated[
        int, setting("sessions", "Sessions scored in one ONNX Runtime call, at most", ge=1, decides="nothing")
    ] = 64
    # ONNX Runtime splits the work of an operator over threads and leaves the order of its additions as it is.
    score_threads: Annotated[
        int, setting("threads", "Threads within one ONNX Runtime call (intra-op)", ge=1, decides="nothing")
    ] = 1


class WorkerSettings(Group, frozen=True, kw_only=True):
    """How a worker reads, commits, stops and reports."""

    group: Annotated[str, setting("text", "Consumer group; the workers of one group share the partitions")] = (
        "clickscore"
    )
    instance_id: Annotated[
        str, setting("text", "Fixed name of this worker in its group, so that a restart causes no rebalance")
    ] = ""
    delivery: Annotated[
        Literal["at_least_once", "exactly_once"],
        setting(
            "name",
            "Whether a decision may be stored again, with the same bytes, after a crash, or a transaction stores each "
            "decision once for consumers that read only committed records",
        ),
    ] = "at_least_once"
    max_batch: Annotated[
        int, setting("records", "Records of a partition that are processed together, at most", ge=1)
    ] = 1024
    fetch_wait_ms: Annotated[
        int,
        setting(
            "ms",
            "Fetch wait while traffic is steady, doubled when a fetch returns 8 records or more; "
            "0 fetches each event at once",
            ge=0,
            former_name="gather_ms",
        ),
    ] = 4
    commit_interval_ms: Annotated[int, setting("ms", "Time between two commits of finished offsets", ge=0)] = 1_000
    session_timeout_ms: Annotated[
        int, setting("ms", "Time without a heartbeat after which the group reassigns a worker's partitions", ge=1)
    ] = 6_000
    stop_ms: Annotated[
        int, setting("ms", "How long a worker that stops may take to finish its batches; then it is cut off", ge=0)
    ] = 8_000
    tick_after_ms: Annotated[
        int, setting("ms", "Idle time after which a partition gets a tick, which moves its clock on; 0 for never", ge=0)
    ] = MINUTE_MS
    epoch_ms: Annotated[
        int,
        setting("ms", "Time in which changes of catalogue and campaigns are gathered before they take effect", ge=10),
    ] = 200
    log_format: Annotated[
        Literal["text", "json"], setting("name", "Form of the log's lines: text, or a JSON object in each line")
    ] = "text"
    log_decisions: Annotated[
        float,
        setting("share", "Share of the decisions with a line in the log, by a hash of the decision id", ge=0, le=1),
    ] = 0.0
    otlp_endpoint: Annotated[
        str,
        setting(
            "URL",
            "Collector of spans of decisions (OTLP over HTTP), as http://127.0.0.1:4318/v1/traces; empty for none",
        ),
    ] = ""
    trace_share: Annotated[
        float,
        setting("share", "Share of the events without a trace for which one is begun, with otlp_endpoint", ge=0, le=1),
    ] = 0.0
    web_host: Annotated[str, setting("host", "Address on which /metrics and /health listen")] = "127.0.0.1"
    web_port: Annotated[int, setting("port", "Port of /metrics and /health", ge=0, le=65_535)] = 6066


class GatewaySettings(Group, frozen=True, kw_only=True):
    """How the gateway listens, whom it answers, and how much it takes and remembers."""

    gateway_host: Annotated[
        str, setting("host", "Address of the gateway; an address outside loopback needs gateway_keys_file")
    ] = "127.0.0.1"
    gateway_port: Annotated[int, setting("port", "Port of the gateway", ge=0, le=65_535)] = 8080
    gateway_keys_file: Annotated[
        str, setting("path", "File of API keys (`clickscore gateway key create`); empty to answer without keys")
    ] = ""
    gateway_rate: Annotated[
        int, setting("1/s", "Requests and events a second of an API key without a rate of its own", ge=1)
    ] = 1_000
    gateway_tls_certfile: Annotated[
        str, setting("path", "Certificate chain of the gateway in PEM form; empty for HTTP without TLS")
    ] = ""
    gateway_tls_keyfile: Annotated[
        str, setting("path", "Private key of the certificate; empty if gateway_tls_certfile has the key")
    ] = ""
    gateway_cors_origins: Annotated[
        str, setting("origin,...", "Web sites whose pages may call the gateway; empty for no site")
    ] = ""
    gateway_console: Annotated[
        Literal["on", "off"], setting("name", "Whether the gateway serves the console, its web pages for people")
    ] = "on"
    gateway_body_bytes: Annotated[int, setting("bytes", "Largest body of a request", ge=1)] = 1024 * 1024
    gateway_connections: Annotated[
        int, setting("connections", "Open connections; with more, requests are answered with 503", ge=1)
    ] = 12_000
    # A request has 30 s in all, so each wait is well below.
    gateway_store_ms: Annotated[
        int, setting("ms", "How long a request waits until Kafka has stored its events", ge=1, le=10_000)
    ] = 5_000
    gateway_decide_ms: Annotated[
        int, setting("ms", "How long a request waits for the decision on its event", ge=1, le=10_000)
    ] = 1_000
    gateway_explain_ms: Annotated[
        int, setting("ms", "How long a request waits for the explanation of a decision", ge=1, le=25_000)
    ] = 20_000
    gateway_explain_records: Annotated[
        int, setting("records", "Records that an explanation reads before the event; 0 for all of the partition", ge=0)
    ] = 0
    gateway_users: Annotated[
        int, setting("users", "Users whose newest decision is remembered; the oldest decision goes first", ge=1)
    ] = 100_000
    gateway_redis_url: Annotated[
        str,
        setting("url", "Redis server with the newest decisions of more users, shared by all gateways", secret=True),
    ] = ""
    gateway_redis_ttl_ms: Annotated[
        int, setting("ms", "How long Redis keeps the newest decision of a user", ge=1000)
    ] = 7 * DAY_MS
    gateway_history_ms: Annotated[
        int, setting("ms", "Age of the oldest decisions that a gateway reads when it starts", ge=0)
    ] = 30 * MINUTE_MS


@functools.cache
def declared(group: type[Group]) -> dict[str, Setting]:
    """Return the declarations of a group's settings by name, in order."""
    settings: dict[str, Setting] = {}
    for field in msgspec.structs.fields(group):
        (meta,) = field.type.__metadata__
        extra = meta.extra
        settings[field.name] = Setting(
            name=field.name,
            annotated=field.type,
            kind=get_args(field.type)[0],
            default=field.default,
            unit=extra["unit"],
            sentence=meta.description,
            decides=extra["decides"] or group.decides,
            secret=extra["secret"],
            former_name=extra["former_name"],
        )
    return settings


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, from `load` with the source of each value, or from `Settings.of`."""

    kafka: KafkaSettings = msgspec.field(default_factory=KafkaSettings)
    sessions: SessionSettings = msgspec.field(default_factory=SessionSettings)
    policy: PolicySettings = msgspec.field(default_factory=PolicySettings)
    scoring: ScoringSettings = msgspec.field(default_factory=ScoringSettings)
    worker: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    gateway: GatewaySettings = msgspec.field(default_factory=GatewaySettings)

    def __post_init__(self) -> None:
        """Check the rules on settings of different groups."""
        if self.worker.delivery == "exactly_once" and self.kafka.isolation_level != "read_committed":
            message = (
                "delivery=exactly_once needs isolation_level=read_committed: a worker would restore the state of "
                "aborted transactions"
            )
            raise SettingsError(message)

    @classmethod
    def of(cls, **values: object) -> Self:
        """Return settings from flat names, as in `Settings.of(gap_ms=60_000, k=5)`; the rest have their defaults.

        Raises:
            SettingsError: A name is unknown, a value is wrong, or two contradict each other.
        """
        return cls().replace(**values)

    def replace(self, **changes: object) -> Self:
        """Return these settings with other values for some, by flat names.

        Raises:
            SettingsError: A name is unknown, a value is wrong, or two contradict each other.
        """
        unknown = sorted(changes.keys() - self.declared.keys())
        if unknown:
            message = f"unknown settings: {', '.join(unknown)} (see `clickscore settings`)"
            raise SettingsError(message)
        groups: dict[str, Group] = {}
        for name, group in self._groups():
            settings = declared(type(group))
            values = {key: settings[key].convert(value) for key, value in changes.items() if key in settings}
            groups[name] = type(group)(**{**msgspec.structs.asdict(group), **values}) if values else group
        return type(self)(**groups)  # pyright: ignore[reportArgumentType]  (each group goes back under its own name)

    @property
    def declared(self) -> dict[str, Setting]:
        """Declarations of all settings by name, in order."""
        return {key: setting for _, group in self._groups() for key, setting in declared(type(group)).items()}

    @property
    def values(self) -> dict[str, Any]:
        """Values of all settings by name, in order."""
        return {key: value for _, group in self._groups() for key, value in msgspec.structs.asdict(group).items()}

    def deciding(self, *kinds: Decides) -> dict[str, Any]:
        """Return the settings on which these kinds of output depend, by name, in order."""
        values = self.values
        return {name: values[name] for name, setting in self.declared.items() if setting.decides in kinds}

    @property
    def identity(self) -> dict[str, str]:
        """Settings on which a run's output depends, as text: runs with equal identities decide alike."""
        return {name: str(value) for name, value in self.deciding("items", "records").items()}

    @property
    def identity_hash(self) -> str:
        """Hash of `identity`: epochs name the settings by this hash."""
        return xxhash.xxh3_64_hexdigest(msgspec.json.encode(self.identity, order="sorted"))

    def _groups(self) -> list[tuple[str, Group]]:
        return [(field, getattr(self, field)) for field in self.__struct_fields__]


SETTINGS = Settings().declared
"""Declarations of all settings by name."""

# Kafka's own variable, which other tools of a shop set already, counts where ours is not set.
_SHARED_VARIABLES = {"bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS"}

_FORMER_NAMES = {setting.former_name: name for name, setting in SETTINGS.items() if setting.former_name}
_OTHER_VARIABLES = {"CLICKSCORE_CONFIG", "CLICKSCORE_BUNDLE_DIR"}
"""Variables that are no settings: the settings file, and the folder that docker-compose.yml mounts."""
# Kubernetes sets such variables in every pod for a service whose name begins with `clickscore`.
_KUBERNETES_VARIABLE = re.compile(r"\w+_(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT=\w+://|PORT_\d+_(TCP|UDP|SCTP)).*")


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and the source of each value.

    Args:
        flags: Values from the command line by setting; None for an absent flag.
        environ: The environment; by default the process's own.
        file: A TOML file. Default: `CLICKSCORE_CONFIG`, else an existing `clickscore.toml`.

    Raises:
        SettingsError: A value has the wrong type or is out of bounds, a name is unknown, two settings contradict each
            other, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    _refuse_unknown_variables(environ)
    table, path = _read_file(file, environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        value, origins[name] = _lookup(setting, flags or {}, environ, table, str(path))
        if value is not None:
            values[name] = setting.convert(value, origins[name])
    return Settings.of(**values), origins


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that give a child process the same settings."""
    return {SETTINGS[name].variable: str(value) for name, value in settings.values.items()}


def _lookup(
    setting: Setting, flags: Mapping[str, Any], environ: Mapping[str, str], table: Mapping[str, Any], path: str
) -> tuple[Any, str]:
    """Return the value of a setting and its source; None for the default."""
    former = setting.former_name or ""
    shared = _SHARED_VARIABLES.get(setting.name, "")
    candidates = (
        (flags.get(setting.name), "flag"),
        (flags.get(former), "flag"),
        (environ.get(setting.variable), setting.variable),
        (environ.get(f"CLICKSCORE_{former.upper()}"), f"CLICKSCORE_{former.upper()}"),
        (environ.get(shared) or None, shared),
        (table.get(setting.name), path),
        (table.get(former), path),
    )
    return next(((value, origin) for value, origin in candidates if value is not None), (None, "default"))


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """Refuse variables that look like settings, but are not: a misspelled setting would have no effect.

    Raises:
        SettingsError: A variable that begins with `CLICKSCORE_` is no setting.
    """
    known = {f"CLICKSCORE_{name.upper()}" for name in (*SETTINGS, *_FORMER_NAMES)} | _OTHER_VARIABLES
    unknown = [
        name
        for name, value in environ.items()
        if name.startswith("CLICKSCORE_")
        and name not in known
        and not _KUBERNETES_VARIABLE.fullmatch(f"{name}={value}")
    ]
    if unknown:
        message = f"unknown settings in the environment: {_with_suggestions(unknown, known)}. Correct or unset them"
        raise SettingsError(message)


def _with_suggestions(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return unknown names in words, each with the closest known name if a known name is close."""
    # The common beginning of all variables would make any two of them look alike.
    bare_names = {name.removeprefix("CLICKSCORE_"): name for name in sorted(known)}
    words: list[str] = []
    for name in sorted(unknown):
        closest = difflib.get_close_matches(name.removeprefix("CLICKSCORE_"), bare_names, n=1)
        words.append(f"{name} (did you mean {bare_names[closest[0]]}?)" if closest else name)
    return ", ".join(words)


def _read_file(file: Path | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], Path | None]:
    chosen = file or (Path(environ["CLICKSCORE_CONFIG"]) if environ.get("CLICKSCORE_CONFIG") else None)
    path = chosen or Path("clickscore.toml")
    if not path.exists():
        if chosen:
            message = f"the settings file {path} does not exist: correct --config or CLICKSCORE_CONFIG"
            raise SettingsError(message)
        return {}, None
    try:
        table = parse_toml(path.read_bytes())
    except (OSError, ValueError) as exc:
        message = f"the settings file {path} cannot be read as TOML: {exc}"
        raise SettingsError(message) from exc
    unknown = table.keys() - SETTINGS.keys() - _FORMER_NAMES.keys()
    if unknown:
        message = (
            f"unknown settings in {path}: {_with_suggestions(unknown, SETTINGS)}. Correct or remove them "
            "(see `clickscore settings`)"
        )
        raise SettingsError(message)
    return table, path
