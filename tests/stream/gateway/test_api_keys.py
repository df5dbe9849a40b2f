import json
import os
import stat
from pathlib import Path

import pytest

from clickscore.stream.errors import RequestError, SettingsError
from clickscore.stream.gateway.access import Access
from clickscore.stream.gateway.api_keys import Caller, KeyRing, make_key, make_user_key, read_keys, write_keys
from clickscore.stream.gateway.rate_limits import RateLimits
from clickscore.stream.settings import GatewaySettings

CREATED = "2026-03-01T08:00:00+00:00"


def test_key_opens_and_a_changed_key_does_not() -> None:
    new = make_key("shop", ["read", "events", "read"], CREATED)
    ring = KeyRing([new.stored])
    assert ring.match(new.text) == new.stored
    assert new.stored.scopes == ("events", "read")
    prefix, key_id, secret = new.text.split("_", 2)
    for text in (
        "",
        "ck",
        new.text[:-1],
        f"{new.text}x",
        f"xx_{key_id}_{secret}",
        f"ck__{secret}",
        f"{prefix}_0_{secret}",
    ):
        assert ring.match(text) is None
    assert KeyRing([]).match(new.text) is None
    assert ring.match("ck_unknown_") is None


def test_file_has_no_secret_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.json"
    new = make_key("shop", ["read"], CREATED, rate=5)
    write_keys(path, [new.stored])
    assert read_keys(path) == [new.stored]
    assert new.text.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("text", ["", "{}", '[{"key_id":"a"}]', "\xff"])
def test_wrong_file_of_keys_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match="no file of `clickscore gateway key create`"):
        read_keys(tmp_path / "keys.json")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(tmp_path / "none.json")


def access(tmp_path: Path, *scopes: str, rate: int | None = None) -> tuple[Access, str]:
    new = make_key("shop", scopes, CREATED, rate)  # pyright: ignore[reportArgumentType]
    write_keys(tmp_path / "keys.json", [new.stored])
    settings = GatewaySettings(gateway_host="0.0.0.0", gateway_keys_file=str(tmp_path / "keys.json"))
    return Access(settings), f"Bearer {new.text}"


def status(access: Access, authorization: str | None, scope: str) -> int:
    try:
        access.check(authorization, scope)  # pyright: ignore[reportArgumentType]
    except RequestError as error:
        return error.status
    return 200


def test_key_has_its_scopes_and_no_other(tmp_path: Path) -> None:
    checked, header = access(tmp_path, "read")
    assert status(checked, header, "read") == 200
    assert status(checked, header.replace("Bearer", "bearer"), "read") == 200
    assert status(checked, header, "events") == 403
    assert status(checked, header, "admin") == 403
    for wrong in (None, "", "Bearer", "Bearer ", header[:-1], header.replace("Bearer", "Basic")):
        assert status(checked, wrong, "read") == 401


def test_rate_of_a_key_is_kept(tmp_path: Path) -> None:
    checked, header = access(tmp_path, "read", rate=3)
    statuses = [status(checked, header, "read") for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_changed_file_of_keys_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    checked, header = access(tmp_path, "read")
    assert not checked.reload()
    _, second = access(tmp_path, "events")
    path = tmp_path / "keys.json"
    os.utime(path, ns=(0, 1))
    assert checked.reload()
    assert status(checked, header, "read") == 401
    assert status(checked, second, "events") == 200
    path.write_text("broken")
    os.utime(path, ns=(0, 2))
    with pytest.raises(SettingsError):
        checked.reload()
    assert status(checked, second, "events") == 200


def test_without_keys_a_gateway_listens_on_loopback_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        local = Access(GatewaySettings(gateway_host=host))
        assert not local.needs_keys
        assert {status(local, None, scope) for scope in ("events", "read", "admin") * 1000} == {200}  # without a rate
    for host in ("0.0.0.0", "::", "10.0.0.3", "gateway.shop"):
        with pytest.raises(SettingsError, match="needs keys"):
            Access(GatewaySettings(gateway_host=host))


def test_tokens_come_back_with_time_up_to_a_second_of_the_rate() -> None:
    limits = RateLimits()
    for _ in range(10):
        assert limits.wait_seconds("k", 10, 0.0) == 0
        limits.take("k", 10, 0.0, 1)
    assert limits.wait_seconds("k", 10, 0.0) == pytest.approx(0.1)
    assert limits.wait_seconds("k", 10, 0.1) == 0
    limits.take("k", 10, 100.0, 30)  # a long list is taken, and the debt is paid later
    assert limits.wait_seconds("k", 10, 100.0) == pytest.approx(2.1)
    assert limits.wait_seconds("other", 10, 100.0) == 0


def test_keys_file_is_json_for_people(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", [make_key("shop", ["read"], CREATED).stored])
    (entry,) = json.loads((tmp_path / "keys.json").read_text())
    assert entry["name"] == "shop"
    assert set(entry) == {"key_id", "name", "scopes", "sha256", "created_at", "rate"}


def test_user_key_opens_for_its_user_until_it_expires() -> None:
    new = make_key("shop", ["read", "events"], CREATED)
    ring = KeyRing([new.stored])
    for user in ("anna", "a_b/ü", ""):
        key = make_user_key(new.text, user, 1_000)
        assert ring.match_user_key(key, 999.0) == Caller(new.stored, user)
        assert ring.match_user_key(key, 1_000.0) is None
        assert ring.match(key) is None
        for wrong in (key[:-1], f"{key}0", key.replace("1000", "2000"), key.replace("cku", "ck"), "cku___", "cku", "ü"):
            assert ring.match_user_key(wrong, 999.0) is None
        assert KeyRing([]).match_user_key(key, 999.0) is None
    other = make_key("shop", ["read"], CREATED)
    assert ring.match_user_key(make_user_key(other.text, "anna", 1_000), 999.0) is None


def test_user_key_is_made_of_an_api_key_only() -> None:
    user_key = make_user_key(make_key("shop", ["read"], CREATED).text, "anna", 1_000)
    for text in ("", "ck", "ck_1", "ck_1_", user_key):
        with pytest.raises(SettingsError, match="no API key"):
            make_user_key(text, "anna", 1_000)


def test_user_key_has_the_scopes_and_the_rate_of_its_key(tmp_path: Path) -> None:
    checked, header = access(tmp_path, "read", "admin", rate=4)
    user_header = f"Bearer {make_user_key(header.removeprefix('Bearer '), 'anna', 2**40)}"
    caller = checked.check_caller(user_header, "read")
    assert caller.user_id == "anna"
    checked.check_user(caller, "anna")
    with pytest.raises(RequestError, match="another user"):
        checked.check_user(caller, "bob")
    assert status(checked, user_header, "read") == 403  # what speaks about all users
    assert status(checked, user_header, "admin") == 403
    with pytest.raises(RequestError, match="no scope 'events'"):
        checked.check_caller(user_header, "events")
    statuses = [status(checked, header, "read") for _ in range(3)]
    assert statuses == [200, 429, 429]
