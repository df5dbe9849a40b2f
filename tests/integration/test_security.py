"""Security: every refusal of a secured broker is one line that names the cause, and comes at once."""

import asyncio
import datetime
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, SNAPSHOTS, TOPICS
from clickscore.stream.errors import BrokerError, SettingsError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.embedded import EmbeddedBroker, SecurityOptions
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.tail import tail
from clickscore.stream.kafka.topics import check_topics, check_worker_rights, create_topics
from clickscore.stream.settings import KafkaSettings, Settings
from clickscore.stream.simulator.worker_process import free_port
from clickscore.stream.worker.transactions import KafkaTransactions

pytestmark = pytest.mark.kafka

DAY = datetime.timedelta(days=1)
AT_ONCE_S = 20.0
"""Far below `broker_wait_ms`; the machine may be busy."""
TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5
READ, WRITE, DESCRIBE = 3, 4, 8
LITERAL, ALLOW = 3, 3


class Identity(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, path: Path) -> str:
        """Write both into a PEM file."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(key + self.certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)


def identity(name: str, signer: Identity | None = None, *, address: str = "", days: int = 1) -> Identity:
    """Return a new identity; without a signer a CA."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return Identity(builder.sign(signer.key if signer else key, hashes.SHA256()), key)


class Secured(NamedTuple):
    """A secured broker, and files of certificates."""

    plain: str
    ports: dict[str, int]
    folder: Path

    def settings(self, listener: str, **changes: Any) -> KafkaSettings:
        """Return settings that are right for a listener, with changes."""
        protocol = LISTENERS[listener]
        login = {"sasl_username": "ann", "sasl_password": "secret"} if protocol.startswith("SASL") else {}
        values = {
            "bootstrap_servers": f"127.0.0.1:{self.ports[listener]}",
            "security_protocol": protocol,
            "ssl_cafile": str(self.folder / "ca.pem") if protocol.endswith("SSL") else "",
            "broker_wait_ms": 30_000,
            **login,
        }
        return KafkaSettings(**(values | changes))


LISTENERS = {
    "LOGIN": "SASL_PLAINTEXT",
    "SECURE": "SASL_SSL",
    "TLS": "SSL",
    "MTLS": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
}
CERTIFICATES = {"SECURE": "broker", "TLS": "broker", "MTLS": "broker", "EXPIRED": "old", "ELSEWHERE": "elsewhere"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One broker with all listeners, its authorizer, and users by PLAIN and SCRAM."""
    folder = tmp_path_factory.mktemp("secured")
    ca, foreign = identity("ca"), identity("foreign")
    ca.write(folder / "ca.pem")
    foreign.write(folder / "foreign-ca.pem")
    identity("broker", ca, address="127.0.0.1").write(folder / "broker.pem")
    identity("old", ca, address="127.0.0.1", days=-1).write(folder / "old.pem")
    identity("elsewhere", ca, address="10.0.0.1").write(folder / "elsewhere.pem")
    identity("ann", ca).write(folder / "client.pem")
    identity("ann", ca, days=-1).write(folder / "old-client.pem")
    identity("ann", foreign).write(folder / "foreign-client.pem")
    ports = {name: free_port("127.0.0.1") for name in LISTENERS}
    module = "org.apache.kafka.common.security"
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:root",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.mtls.ssl.client.auth": "required",
    }
    for name, file in CERTIFICATES.items():
        properties[f"listener.name.{name.lower()}.ssl.keystore.type"] = "PEM"
        properties[f"listener.name.{name.lower()}.ssl.keystore.location"] = str(folder / f"{file}.pem")
    for name in ("login", "secure"):
        properties[f"listener.name.{name}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256"
        properties[f"listener.name.{name}.plain.sasl.jaas.config"] = (
            f'{module}.plain.PlainLoginModule required user_ann="secret" user_root="secret";'
        )
        properties[f"listener.name.{name}.scram-sha-256.sasl.jaas.config"] = (
            f"{module}.scram.ScramLoginModule required;"
        )
    security = SecurityOptions(
        listeners={name: (protocol, ports[name]) for name, protocol in LISTENERS.items()},
        properties=properties,
        scram=("SCRAM-SHA-256=[name=ann,password=secret]",),
    )
    broker = EmbeddedBroker.start(folder / "kafka", security=security)
    try:
        asyncio.run(create_topics(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)))
        yield Secured(broker.bootstrap_servers, ports, folder)
    finally:
        broker.stop()


def refusal(settings: KafkaSettings) -> str:
    """Return why the broker refuses, which is one line and comes at once."""
    began = time.monotonic()
    with pytest.raises((BrokerError, SettingsError)) as refused:
        asyncio.run(wait_for_broker(settings))
    assert time.monotonic() - began < AT_ONCE_S
    message = str(refused.value)
    assert "\n" not in message
    assert "secret" not in message
    return message


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("listener", ["LOGIN", "SECURE"])
def test_right_login_is_taken(listener: str, mechanism: str, secured: Secured) -> None:
    asyncio.run(wait_for_broker(secured.settings(listener, sasl_mechanism=mechanism)))


def test_right_certificates_are_taken(secured: Secured) -> None:
    asyncio.run(wait_for_broker(secured.settings("TLS")))
    asyncio.run(wait_for_broker(secured.settings("MTLS", ssl_certfile=str(secured.folder / "client.pem"))))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("wrong", [{"sasl_password": "secrets"}, {"sasl_username": "eve"}], ids=["password", "user"])
def test_wrong_login_is_named(wrong: dict[str, str], mechanism: str, secured: Secured) -> None:
    message = refusal(secured.settings("SECURE", sasl_mechanism=mechanism, **wrong)).replace("secrets", "")
    user = wrong.get("sasl_username", "ann")
    assert f"refuses the login of user '{user}' by {mechanism}: the password is wrong or the user is unknown" in message


def test_mechanism_that_is_not_offered_is_named(secured: Secured) -> None:
    message = refusal(secured.settings("LOGIN", sasl_mechanism="SCRAM-SHA-512"))
    assert "does not offer the login method SCRAM-SHA-512" in message


@pytest.mark.parametrize(
    ("listener", "changes", "words"),
    [
        ("EXPIRED", {}, "the broker's certificate has expired"),
        ("ELSEWHERE", {}, "the broker's certificate is for another host name"),
        ("TLS", {"ssl_cafile": "foreign-ca.pem"}, "the broker's certificate is not trusted by"),
        ("MTLS", {}, "the broker wants a client certificate"),
        ("MTLS", {"ssl_certfile": "old-client.pem"}, "the broker refuses the client certificate"),
        ("MTLS", {"ssl_certfile": "foreign-client.pem"}, "the broker refuses the client certificate"),
        ("TLS", {"ssl_cafile": "absent.pem"}, "absent.pem) cannot be read: No such file or directory"),
        ("MTLS", {"ssl_certfile": "absent.pem"}, "absent.pem) cannot be read: No such file or directory"),
    ],
    ids=["expired", "host name", "foreign CA", "no client's", "old client's", "foreign client's", "no CA", "no file"],
)
def test_wrong_certificate_is_named(listener: str, changes: dict[str, str], words: str, secured: Secured) -> None:
    files = {name: str(secured.folder / file) for name, file in changes.items()}
    assert words in refusal(secured.settings(listener, **files))


@pytest.mark.parametrize(
    ("listener", "changes", "words"),
    [
        ("TLS", {"security_protocol": "PLAINTEXT"}, "speaks TLS. Set security_protocol=SSL"),
        ("SECURE", {"security_protocol": "SASL_PLAINTEXT"}, "speaks TLS. Set security_protocol=SASL_SSL"),
        ("LOGIN", {"security_protocol": "SASL_SSL"}, "speaks no TLS. Set security_protocol=SASL_PLAINTEXT"),
        ("LOGIN", {"security_protocol": "PLAINTEXT"}, "wants a login by PLAIN or SCRAM-SHA-256"),
        ("SECURE", {"security_protocol": "SSL"}, "wants a login by PLAIN or SCRAM-SHA-256"),
        ("TLS", {"security_protocol": "SASL_SSL"}, "takes no login. Set security_protocol=SSL"),
    ],
)
def test_wrong_protocol_is_named(listener: str, changes: dict[str, str], words: str, secured: Secured) -> None:
    assert words in refusal(secured.settings(listener, **changes))


async def allow(secured: Secured, rights: list[tuple[int, str, int]], user: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=secured.plain)
    await admin.start()
    try:
        for kind, name, operation in rights:
            request = CreateAclsRequest(kind, name, LITERAL, f"User:{user}", "*", operation, ALLOW)
            response = await admin._send_request(request)
            assert not response.creation_responses[0][0]
        await asyncio.sleep(0.3)  # the authorizer learns of them from the cluster's log
    finally:
        await admin.close()


def granted() -> list[tuple[int, str, int]]:
    """Return the rights of the documented table, for a worker."""
    rights = [(GROUP, "clickscore", READ)]
    for topic in TOPICS:
        if topic.name in {"catalogue-items", "ad-campaigns", EVENTS.name, SNAPSHOTS.name}:
            rights.append((TOPIC, topic.name, READ))
        if topic.name not in {"catalogue-items", "ad-campaigns"}:
            rights.append((TOPIC, topic.name, WRITE))
    return rights


def lacking(settings: KafkaSettings) -> str:
    with pytest.raises(BrokerError) as refused:
        asyncio.run(check_worker_rights(settings, "clickscore"))
    return str(refused.value)


def test_rights_are_named_one_by_one_until_a_worker_has_them_all(secured: Secured) -> None:
    settings = secured.settings("SECURE")
    message = lacking(settings)
    assert "user 'ann' lacks rights: describe, read, write on topic clickstream-events; " in message
    assert message.count(" on topic ") == len(TOPICS) - 1  # without rollouts, for workers with a bundle store
    assert "read on group clickscore" in message

    rights = granted()
    asyncio.run(allow(secured, [right for right in rights if right[0] == TOPIC and right[2] == READ], "ann"))
    message = lacking(settings)
    assert "lacks rights: write on topic clickstream-events; " in message
    assert "; describe, write on topic recommendation-decisions; " in message
    assert "on topic catalogue-items" not in message

    with pytest.raises(BrokerError, match="lacks rights: write on topic clickstream-events"):
        asyncio.run(produce_one(settings))
    asyncio.run(allow(secured, [right for right in rights if right[2] == WRITE], "ann"))
    assert "lacks rights: read on group clickscore. Grant" in lacking(settings)
    asyncio.run(produce_one(settings))
    with pytest.raises(BrokerError, match="lacks rights: read on topic recommendation-decisions"):
        asyncio.run(tail_one(settings))

    asyncio.run(allow(secured, [right for right in rights if right[0] == GROUP], "ann"))
    asyncio.run(check_worker_rights(settings, "clickscore"))
    asyncio.run(check_topics(settings))

    with pytest.raises(BrokerError, match="describe, write on transactional id clickstream-events-clickscore-0"):
        asyncio.run(take_over(settings))
    transactional_id = "clickstream-events-clickscore-0"
    asyncio.run(allow(secured, [(TRANSACTIONAL_ID, transactional_id, right) for right in (DESCRIBE, WRITE)], "ann"))
    asyncio.run(take_over(settings))


async def take_over(kafka: KafkaSettings) -> None:
    """Open the transactions of partition 0, as a worker does that delivers exactly once."""
    transactions = KafkaTransactions(Settings(kafka=kafka))
    await transactions.take_over([0])
    await transactions.take_over([])


async def produce_one(settings: KafkaSettings) -> None:
    async with EventSender(settings) as sender:
        await sender.add(b"{}")


async def tail_one(settings: KafkaSettings) -> None:
    async for _ in tail(settings, RECOMMENDATIONS.name, count=1):
        pass


def test_right_to_create_topics_is_named(secured: Secured) -> None:
    settings = secured.settings("SECURE", topic_prefix="other-")
    with pytest.raises(BrokerError, match=r"topic other-.* cannot be made: this client lacks the right to create it"):
        asyncio.run(create_topics(settings))
