"""`clickscore gateway`: keys by the command line, and errors before the gateway listens."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clickscore.stream.__main__ import cli
from clickscore.stream.errors import SettingsError
from clickscore.stream.gateway.api_keys import KeyRing, read_keys


def run(folder: Path, *arguments: str) -> Result:
    command = ["gateway", "key", *arguments, "--gateway-keys-file", str(folder / "keys.json")]
    return CliRunner().invoke(cli, command)


def test_created_key_is_shown_once_and_opens(tmp_path: Path) -> None:
    shown = run(tmp_path, "create", "web-shop", "--scope", "events", "--scope", "read", "--rate", "5")
    assert shown.exit_code == 0
    stored = KeyRing(read_keys(tmp_path / "keys.json")).match(shown.stdout.strip())
    assert stored
    assert (stored.name, stored.scopes, stored.rate) == ("web-shop", ("events", "read"), 5)
    assert "shown once" in shown.stderr
    listed = run(tmp_path, "list").stdout
    assert listed.startswith(f"{stored.key_id}  web-shop  events, read, 5/s, created at 20")
    assert shown.stdout.strip() not in listed


def test_removed_key_opens_no_more_and_the_others_do(tmp_path: Path) -> None:
    texts = [run(tmp_path, "create", name, "--scope", "read").stdout.strip() for name in ("a", "b")]
    first, second = read_keys(tmp_path / "keys.json")
    assert run(tmp_path, "remove", first.key_id).exit_code == 0
    ring = KeyRing(read_keys(tmp_path / "keys.json"))
    assert ring.match(texts[0]) is None
    assert ring.match(texts[1]) == second
    missing = run(tmp_path, "remove", first.key_id)
    assert missing.exit_code == 1
    assert "has no key" in missing.output


def test_key_needs_a_scope_and_a_file(tmp_path: Path) -> None:
    assert run(tmp_path, "create", "web-shop").exit_code == 2
    assert run(tmp_path, "create", "web-shop", "--scope", "everything").exit_code == 2
    with pytest.raises(SettingsError, match="gateway_keys_file is empty"):
        CliRunner().invoke(cli, ["gateway", "key", "list"], catch_exceptions=False)


def test_user_key_is_derived_from_the_key_on_standard_input(tmp_path: Path) -> None:
    text = run(tmp_path, "create", "web-shop", "--scope", "read").stdout
    shown = CliRunner().invoke(cli, ["gateway", "key", "user", "anna", "--seconds", "600"], input=text)
    caller = KeyRing(read_keys(tmp_path / "keys.json")).match_user_key(shown.stdout.strip(), time.time())
    assert caller
    assert caller.user_id == "anna"


def test_hostile_name_is_shown_as_text(tmp_path: Path) -> None:
    run(tmp_path, "create", "\x1b[2Jshop", "--scope", "read")
    assert "\x1b" not in run(tmp_path, "list").stdout
