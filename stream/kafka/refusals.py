"""Refusals: say in one line why a broker refuses a client, where waiting would not help."""

import ssl
from collections.abc import Iterator

from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from clickscore.stream.settings import KafkaSettings

# Verification codes of OpenSSL (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64


def refusal(error: BaseException, settings: KafkaSettings) -> str | None:
    """Return the cause of a refused connection in words, or no cause where the broker may answer later.

    Args:
        error: Error of the attempt, with its causes.
        settings: Login and certificates of the attempt.
    """
    return next((words for cause in _causes(error) if (words := _words(cause, settings))), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__cause__


def _words(error: BaseException, settings: KafkaSettings) -> str | None:
    if isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError):
        return (
            f"the broker refuses the login of user {settings.sasl_username!r} by {settings.sasl_mechanism}: the "
            "password is wrong or the user is unknown. Correct sasl_username and sasl_password"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"the broker does not offer the login method {settings.sasl_mechanism}. Correct sasl_mechanism"
    if isinstance(error, IllegalSaslStateError):
        without_login = settings.security_protocol.replace("SASL_", "")
        return f"this port of the broker takes no login. Set security_protocol={without_login}, or use another port"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error, settings)
    if isinstance(error, ssl.SSLError):
        return _tls_words(getattr(error, "reason", None) or "", settings)  # Python's own errors have no reason
    return None


def _certificate_words(error: ssl.SSLCertVerificationError, settings: KafkaSettings) -> str:
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired. Renew it on the broker"
    if error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet. Compare the clocks of broker and client"
    if error.verify_code in {_HOSTNAME_MISMATCH, _IP_MISMATCH}:
        return (
            f"the broker's certificate is for another host name ({error.verify_message}). "
            "Name the broker in bootstrap_servers as its certificate does"
        )
    trusted = settings.ssl_cafile or "the system's CA certificates"
    return (
        f"the broker's certificate is not trusted by {trusted} ({error.verify_message}). "
        "Set ssl_cafile to the certificate of the CA that signed it"
    )


def _tls_words(reason: str, settings: KafkaSettings) -> str | None:
    """Return the meaning of an error of OpenSSL: the alerts are those by which a broker refuses a certificate."""
    words = reason.replace("_", " ").lower()
    if not any(part in reason for part in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")):
        return None
    if settings.ssl_certfile:
        return (
            f"the broker refuses the client certificate {settings.ssl_certfile} ({words}): it is expired, or the "
            "broker does not trust its CA. Correct ssl_certfile and ssl_keyfile"
        )
    return f"the broker wants a client certificate ({words}). Set ssl_certfile and ssl_keyfile"
