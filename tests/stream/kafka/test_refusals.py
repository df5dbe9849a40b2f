"""Refusals: the cause of a refused connection, and no cause where a broker may answer later."""

import ssl

import pytest
from aiokafka.errors import IllegalSaslStateError, KafkaConnectionError, SaslAuthenticationFailed

from clickscore.stream.kafka.refusals import refusal
from clickscore.stream.settings import KafkaSettings

SETTINGS = KafkaSettings(security_protocol="SASL_SSL", sasl_username="ann", sasl_password="secret")


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "why"
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "not valid yet"),
        (10, "expired"),
        (18, "not trusted"),
        (20, "not trusted"),
        (62, "host name"),
        (64, "host name"),
    ],
)
def test_certificate_is_refused_with_the_cause(code: int, words: str) -> None:
    assert words in (refusal(certificate_error(code), SETTINGS) or "")


def test_cause_of_a_closed_connection_counts() -> None:
    error = KafkaConnectionError("Connection closed")
    error.__cause__ = SaslAuthenticationFailed("wrong")
    message = refusal(error, SETTINGS) or ""
    assert "login of user 'ann' by PLAIN" in message
    assert "secret" not in message


def test_port_without_a_login_names_the_protocol() -> None:
    assert "security_protocol=SSL" in (refusal(IllegalSaslStateError(), SETTINGS) or "")


@pytest.mark.parametrize(
    "error", [KafkaConnectionError("closed"), ConnectionResetError(), TimeoutError(), ssl.SSLError(1)]
)
def test_broker_that_may_answer_later_has_no_refusal(error: Exception) -> None:
    assert refusal(error, SETTINGS) is None
