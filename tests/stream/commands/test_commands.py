import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clickscore.schemas.catalogue import decode_item
from clickscore.stream.__main__ import ALIASES, COMMANDS, cli
from clickscore.stream.commands.replay import _print_diff
from clickscore.stream.commands.settings import HIDDEN
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS
from clickscore.stream.event_files.formats.rees46 import REES46
from clickscore.stream.replay.verify import DifferingDecision, DiffSummary
from clickscore.stream.settings import SETTINGS
from clickscore.stream.terminal_text import safe_text
from tests.bundles import small_bundle

pytestmark = pytest.mark.slow

GOOD = '{"type":"view","event_id":"e1","user_id":"u1","ts":1569888000000,"item_id":"i1"}'


def clickscore(*arguments: str, stdin: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "clickscore.stream", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CLICKSCORE_", "KAFKA_"))}
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60, env=env | environment)


@pytest.mark.parametrize(
    "name",
    ["broker", "topics", "produce", "events", "relay", "gateway", "replay", "sessions", "tail", "settings"],
)
def test_help_has_an_example(name: str) -> None:
    assert name in COMMANDS
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0
    assert f"Example:\n    {'CLICKSCORE_' if name == 'settings' else f'clickscore {name}'}" in shown.output


@pytest.mark.train
@pytest.mark.parametrize(("former", "name"), ALIASES.items())
def test_former_name_of_a_command_works_and_no_list_shows_it(former: str, name: str) -> None:
    context = click.Context(cli)
    assert name in cli.list_commands(context)
    assert former not in cli.list_commands(context)
    assert cli.get_command(context, former) is cli.get_command(context, name)


def _leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands of a group, with their names."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        if (child := command.get_command(context, part)) is not None:
            yield from _leaves(child, f"{name} {part}")


@pytest.mark.train
def test_no_option_takes_nan_for_a_number() -> None:
    """`nan` lies within every range of click. Settings check their values by themselves."""
    numbers = [
        (name, option)
        for name, command in _leaves(cli, "clickscore")
        for option in command.params
        if isinstance(option.type, (click.FloatRange, click.types.FloatParamType)) and option.name not in SETTINGS
    ]
    assert len(numbers) > 10
    for name, option in numbers:
        with pytest.raises(click.BadParameter, match="finite"):
            option.type.convert("nan", option, click.Context(cli, info_name=name))


def test_check_counts_identities_and_no_time_passes_by_them() -> None:
    later = '"user_id":"u1","ts":1569998000000'
    identify = f'{{"type":"identify","event_id":"i",{later},"identified_as":"u2"}}'
    handover = f'{{"type":"handover",{later},"anonymous_id":"a","partition":0,"offset":1}}'
    result = clickscore("events", "check", "-", stdin=f"{GOOD}\n{identify}\n{handover}\n{GOOD}\n".encode())
    assert result.returncode == 0, result.stderr
    assert b"1  identify" in result.stdout
    assert b"1  handover" in result.stdout


def test_user_cannot_be_identified_as_the_same_user() -> None:
    result = clickscore("identify", "anna", "anna")
    assert (result.returncode, b"are the same. Name the anonymous id first" in result.stderr) == (1, True)


def test_check_counts_good_events_by_type_and_repeats() -> None:
    cart = GOOD.replace("view", "cart").replace("e1", "e2")
    result = clickscore("events", "check", "-", stdin=f"{GOOD}\n{cart}\n{GOOD}\n".encode())
    assert result.returncode == 0
    words = result.stdout.decode()
    assert "3 good events" in words
    assert "2  view" in words
    assert "1  cart" in words
    assert "from 2019-10-01 00:00:00 UTC to 2019-10-01 00:00:00 UTC" in words
    assert "1 events repeat an earlier event id" in words
    assert "0 lines have errors" in words


def test_check_says_what_is_wrong_with_which_line_and_exits_with_1() -> None:
    big = GOOD.replace("i1", "i" * 200)
    lines = [
        GOOD,
        "{broken",
        '{"type":"hug","ts":1}',
        '{"type":"view","ts":1767605470000}',
        "{broken too",
        big,
        "\ud800",
    ]
    result = clickscore(
        "events",
        "check",
        "-",
        "--show",
        "1",
        "--max-event-bytes",
        "150",
        stdin="\n".join(lines).encode(errors="surrogatepass"),
    )
    assert result.returncode == 1
    words = result.stdout.decode()
    assert "1 good events" in words
    assert "6 lines have errors" in words
    assert "2 x JSON is malformed: object keys must be strings (lines 2, ...)" in words
    assert "1 x Invalid value 'hug' - at `$.type` (line 3)" in words
    assert "1 x Object missing required field `event_id` (line 4)" in words
    assert "1 x more than max_event_bytes (150) (line 6)" in words


def test_check_reads_rees46(tmp_path: Path) -> None:
    rows = [
        ",".join(REES46.columns),
        "2019-10-01 00:00:00 UTC,view,1,2,,acme,35.79,u1,s1",
        "2019-10-01 00:00:01 UTC,view,1,2,,acme,dear,u1,s1",
    ]
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    result = clickscore("events", "check", str(path), "--format", "rees46")
    assert result.returncode == 1
    assert "1 good events" in result.stdout.decode()
    assert "1 x price is no number (line 3)" in result.stdout.decode()


def test_formats_lists_the_shipped_mappings_in_a_line_each() -> None:
    lines = CliRunner().invoke(cli, ["events", "formats"]).output.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"clickscore", "rees46", "ga4", "segment", "snowplow", *SHIPPED_MAPPINGS} <= set(names)
    assert len(names) == len(set(names))


def test_printed_mapping_is_a_mapping_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CliRunner().invoke(cli, ["events", "mapping", "retailrocket"]).output)
    (tmp_path / "events.csv").write_text("timestamp,visitorid,event,itemid,transactionid\n1433221332117,1,view,2,\n")
    result = CliRunner().invoke(
        cli, ["events", "check", str(tmp_path / "events.csv"), "--format", str(tmp_path / "mine.toml")]
    )
    assert result.exit_code == 0
    assert "1 good events" in result.output


def test_check_says_how_many_lines_a_mapping_ignores() -> None:
    call = '{"type":"identify","userId":"u","timestamp":"2026-03-01T08:00:00Z"}'
    result = clickscore("events", "check", "-", "--format", "segment", stdin=f"{call}\n{call}\n".encode())
    assert "2 lines have a type that the mapping segment ignores" in result.stdout.decode()
    assert result.returncode == 1  # no line is an event, so the mapping does not fit the file


def test_unknown_format_is_refused_with_the_names() -> None:
    result = clickscore("events", "check", "-", "--format", "segmant")
    assert result.returncode == 2
    assert b"'segmant' is not one of" in result.stderr
    assert b"segment" in result.stderr


def test_items_have_the_price_and_category_last_seen(tmp_path: Path) -> None:
    rows = [
        "event_time,event_type,item,category,user,session,price",
        "2018-03-01 00:00:06,view,a,tea,ann,s,9.5",
        "2018-03-01 00:00:07,view,a,,ann,s,8.5",
        "2018-03-01 00:00:08,comment,b,,ann,s,",
        "2018-03-01 00:00:09,view,c,,ann,s,",
    ]
    (tmp_path / "events.csv").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "items.jsonl.gz"
    result = clickscore("items", str(tmp_path / "events.csv"), "--format", "csv", "--out", str(out))
    assert result.returncode == 0
    found = [decode_item(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert [(item.item_id, item.category, item.price) for item in found] == [("a", "tea", 8.5), ("c", "", None)]


def test_file_that_is_not_there_is_one_line_and_exit_code_1() -> None:
    result = clickscore("events", "check", "/nowhere/events.jsonl")
    assert result.returncode == 1
    assert result.stderr.decode() == "clickscore: /nowhere/events.jsonl cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--since", "yesterday"], "'yesterday' is neither a time like 2026-03-01T08:00 (UTC), nor ms since 1970"),
        (["--since", "1h", "--from-beginning"], "--from-beginning and --since cannot be combined"),
        (
            ["catalogue-items", "--user", "anna"],
            "--user needs a topic that is keyed by user, and catalogue-items is not",
        ),
    ],
)
def test_tail_refuses_options_that_have_no_meaning(options: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["tail", *options])
    assert result.exit_code == 2
    assert words in result.output


def test_produce_refuses_two_paces_at_once() -> None:
    result = clickscore("produce", "-", "--rate", "5", "--speed", "1")
    assert result.returncode == 2
    assert "cannot be combined" in result.stderr.decode()


def test_produce_without_a_broker_says_how_to_start_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(GOOD, encoding="utf-8")
    result = clickscore("produce", str(path), "--bootstrap-servers", "127.0.0.1:9", "--broker-wait-ms", "500")
    assert result.returncode == 1
    assert b"no Kafka broker answers at 127.0.0.1:9" in result.stderr
    assert b"clickscore broker start" in result.stderr
    assert b"Traceback" not in result.stderr


def test_settings_say_value_unit_and_origin(tmp_path: Path) -> None:
    config = tmp_path / "clickscore.toml"
    config.write_text("k = 3\n", encoding="utf-8")
    result = clickscore(
        "settings", "--json", "--config", str(config), CLICKSCORE_GAP_MS="900000", KAFKA_BOOTSTRAP_SERVERS="kafka:9092"
    )
    shown = json.loads(result.stdout)
    assert shown.keys() == SETTINGS.keys()
    assert shown["gap_ms"] == {"value": 900_000, "unit": "ms", "from": "CLICKSCORE_GAP_MS"}
    assert shown["k"] == {"value": 3, "unit": "items", "from": str(config)}
    assert shown["bootstrap_servers"]["from"] == "KAFKA_BOOTSTRAP_SERVERS"
    assert shown["max_batch"]["from"] == "default"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_settings_hide_secrets(flags: list[str]) -> None:
    result = clickscore("settings", *flags, CLICKSCORE_SASL_PASSWORD="hunter2")
    assert b"hunter2" not in result.stdout
    assert HIDDEN.encode() in result.stdout


def test_settings_table_keeps_a_row_on_a_line_in_a_pipe() -> None:
    rows = clickscore("settings").stdout.decode().splitlines()
    for name in SETTINGS:
        assert len([row for row in rows if row.strip().startswith(f"{name} ")]) == 1


def test_settings_table_shows_values_as_they_are() -> None:
    assert b" [red]shop[/b] " in clickscore("settings", CLICKSCORE_GROUP="[red]shop[/b]").stdout


def test_errors_of_a_file_command_no_terminal() -> None:
    hostile = GOOD.replace('"view"', '"\\u001b]0;title\\u0007\\u202e"')
    result = clickscore("events", "check", "-", stdin=f"{hostile}\n".encode())
    words = result.stdout.decode()
    assert "1 x " in words
    assert words == safe_text(words, lines=True)


def test_differing_decisions_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    published, replayed = (f'{{"items":["{name}\u202e\x9b2J"]}}'.encode() for name in ("old", "new"))
    escaped = b'{"item_id":"\\u001b[2J\\u202e"}'
    differences = [
        DifferingDecision("d-\x1b[2J", published, replayed),
        DifferingDecision("e", escaped, b""),
        DifferingDecision("f", escaped, escaped + b" "),
    ]
    _print_diff(DiffSummary(different=3, differences=differences, extra_ids=["\x1b]0;x\x07"]))
    words = capsys.readouterr().out
    assert "items" in words
    assert words == safe_text(words, lines=True)


def shop_rows(times: list[str]) -> str:
    header = "event_time,event_type,item,category,user,session,price\n"
    return header + "".join(f"{time},view,i{number},,u,,\n" for number, time in enumerate(times))


def test_check_of_a_file_with_late_events_exits_with_1(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        shop_rows(["2026-01-05 09:30", "2026-01-05 09:10", "2026-01-08 09:40", "2099-01-01", "2026-01-08 09:41"])
    )
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "items.txt").write_text("i0\ni1\n", encoding="utf-8")
    result = clickscore("events", "check", str(path), "--bundle", str(tmp_path / "bundle"))
    assert result.returncode == 1
    words = result.stdout.decode()
    assert "4 good events" in words
    assert "1 events are older than the event before" in words
    assert (
        "1 events are late in the order of the file\n  1 x behind the newest event of its partition (line 3)" in words
    )
    assert "1 times the newest event time jumps by more than a day, at most by 3.0 days (line 4)" in words
    assert "2 of 4 events on items (50.0%) are on 2 items that the bundle does not know" in words
    assert "1 x the time 2099-01-01 00:00:00 UTC is a year or more after the rest of the file (line 5)" in words


@pytest.mark.parametrize("command", ["sessions", "replay"])
def test_file_in_order_of_users_has_no_late_event(command: str, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [f"{user},10{n},7,pv,{1511668800 + 300 * n}\n" for user in range(4) for n in range(3)]
    path.write_text("".join(rows), encoding="utf-8")
    flags = ("--partitions", "1", "--out", str(tmp_path / "out.jsonl"))
    by_time = clickscore(command, str(path), *flags)
    assert by_time.returncode == 0
    assert b"12 decided" in by_time.stderr
    as_written = clickscore(command, str(path), *flags, "--order", "file")
    assert b"3 events are late" in as_written.stderr
    piped = clickscore(command, "-", *flags, stdin=path.read_bytes())
    assert b"3 events are late" in piped.stderr
    assert b"write it to a file" in piped.stderr


@pytest.mark.parametrize("command", ["sessions", "replay", "produce", "items"])
def test_file_without_an_event_exits_with_1_and_the_likely_format(command: str, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(shop_rows(["2026-01-05 09:30"]), encoding="utf-8")
    out = () if command == "produce" else ("--out", str(tmp_path / "out"))
    result = clickscore(command, str(path), "--format", "clickscore", *out)
    assert result.returncode == 1
    assert b"holds no event in the format clickscore: line 1: JSON is malformed" in result.stderr
    assert b"It looks like --format csv" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_sessions_go_through_standard_input_and_output(tmp_path: Path) -> None:
    rows = shop_rows(["2026-01-05 09:30", "2026-01-05 09:31"]).encode()
    piped = clickscore("sessions", "-", "--close-open", "--out", "-", stdin=rows)
    path = tmp_path / "events.csv"
    path.write_bytes(rows)
    assert clickscore("sessions", str(path), "--close-open", "--out", str(tmp_path / "out")).returncode == 0
    assert piped.stdout == (tmp_path / "out").read_bytes() != b""


def test_items_go_through_standard_input_and_output() -> None:
    result = clickscore("items", "-", "--out", "-", stdin=shop_rows(["2026-01-05 09:30"]).encode())
    assert decode_item(result.stdout).item_id == "i0"


def test_check_of_a_bundle_commands_no_terminal(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "bundle")
    hostile = "\x1b]0;title\x07\x1b[2J\u202e\x9b"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for field in ("training_data", "framework", "unfinished"):
        manifest[field] = hostile
    manifest["precision"] = hostile
    manifest["fidelity"] = {"beginnings": 1, "overlap": 1.0, "hr": 0.0, "mrr": 0.0}
    manifest["metrics"] = {hostile: 0.5}
    for changes in ({}, {"format_version": 2}, {"absent_heads": [hostile]}, {"outputs": []}, {"content_hash": hostile}):
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))
        result = clickscore("bundle", "check", str(folder))
        words = result.stdout.decode() + result.stderr.decode()
        assert result.returncode == (1 if changes else 0)
        assert words.strip()
        assert words == safe_text(words, lines=True)


@pytest.mark.parametrize(("item", "fallback", "model"), [("item-1", "0.0%", "100.0%"), ("novelty", "100.0%", "0.0%")])
def test_replay_says_how_much_the_fallback_filled(item: str, fallback: str, model: str, tmp_path: Path) -> None:
    folder, out = small_bundle(tmp_path / "bundle"), tmp_path / "decisions.jsonl"
    event = GOOD.replace('"i1"', f'"{item}"').encode()
    result = clickscore("replay", "-", "--bundle", str(folder), "--out", str(out), stdin=event)
    assert f": the fallback (popular items) filled {fallback} of the model's places, the model {model}".encode() in (
        result.stderr
    )


def test_replay_without_a_bundle_says_nothing_of_a_fallback(tmp_path: Path) -> None:
    result = clickscore("replay", "-", "--out", str(tmp_path / "decisions.jsonl"), stdin=GOOD.encode())
    assert b"1 decided" in result.stderr
    assert b"fallback" not in result.stderr
