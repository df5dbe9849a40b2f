"""Row joiner: lines of quoted cells become rows, in files of rows and of mappings."""

from pathlib import Path

import pytest

from clickscore.schemas.events import decode_record
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.lines import Line

GORSE = "feedback_type,user_id,item_id,time_stamp\n"
STAMP = "2026-03-01T08:00:00Z"
ROW = f"read,bob,kettle,{STAMP}\n"
OBJECT = f'{{"FeedbackType":"read","UserId":"bob","ItemId":"pot","Timestamp":"{STAMP}"}}\n'


def read(path: Path, text: str, file_format: str) -> tuple[list[Line], int]:
    path.write_text(text, newline="")
    with EventFile(path, file_format) as file:
        return list(file), file.ignored


def brief(lines: list[Line]) -> list[tuple[int, str]]:
    """Return number and item, or the error, of each line."""
    return [(line.number, line.error or decode_record(line.value).item_id) for line in lines]  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cell_of_a_mapping_may_hold_line_breaks(tmp_path: Path, end: str) -> None:
    text = GORSE + f'read,bob,"ket\n\ntle",{STAMP}\n' + ROW
    lines, ignored = read(tmp_path / "a", text.replace("\n", end), "gorse")
    assert brief(lines) == [(2, f"ket{end}{end}tle"), (5, "kettle")]
    assert ignored == 0


def test_quoted_cell_of_rows_keeps_its_blank_lines(tmp_path: Path) -> None:
    text = "event_time,event_type,item,category,user,session,price\n"
    text += '2026-01-05 09:30:02,view,"ket\n\n\ntle",tea,anna,s1,\n\n2026-01-05 09:30:03,view,pot,tea,anna,s1,\n'
    assert brief(read(tmp_path / "a", text, "csv")[0]) == [(2, "ket\n\n\ntle"), (7, "pot")]


@pytest.mark.slow
def test_reading_of_a_mapping_goes_on_after_a_row_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(GORSE + f'read,bob,"a\nb",{STAMP}\n' * 9_000)
    lines: list[Line] = []
    with EventFile(path, "gorse") as file:
        chunks = file.chunks()
        lines += next(chunks)
        position = file.position
        for chunk in chunks:
            lines += chunk
    assert len(lines) == 9_000
    with EventFile(path, "gorse", position) as file:
        rest = list(file)
    assert rest == lines[-len(rest) :]
    assert 0 < len(rest) < 9_000


def test_stray_quote_of_a_mapping_costs_one_row(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "a", GORSE + f'read,"bob,kettle,{STAMP}\n\n' + ROW * 300, "gorse")
    assert [(line.number, line.error) for line in lines if line.error] == [(2, "unexpected end of data")]
    assert len(lines) == 301


def test_line_that_is_too_long_ends_an_open_row(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(GORSE + ROW * 2 + f'read,"bob,kettle,{STAMP}\n' + "x" * 1_200_000 + "\n" + ROW * 2)
    with EventFile(path, "gorse") as file:
        chunks = [(list(chunk), file.position) for chunk in file.chunks()]
    lines = [line for chunk, _ in chunks for line in chunk]
    errors = {4: "unexpected end of data", 5: "longer than 1048576 bytes"}
    assert [(line.number, line.error) for line in lines] == [(number, errors.get(number)) for number in range(2, 8)]
    for index, (_, position) in enumerate(chunks):
        with EventFile(path, "gorse", position) as file:
            assert list(file) == [line for chunk, _ in chunks[index + 1 :] for line in chunk]


@pytest.mark.parametrize("end", ["", "\n"])
def test_reading_goes_on_at_an_open_row_at_the_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a"
    path.write_text(GORSE + ROW + f'read,"bob,kettle,{STAMP}' + end)
    with EventFile(path, "gorse") as file:
        chunks = [(list(chunk), file.position) for chunk in file.chunks()]
    for index, (_, position) in enumerate(chunks):
        with EventFile(path, "gorse", position) as file:
            assert list(file) == [line for chunk, _ in chunks[index + 1 :] for line in chunk]


def test_broken_line_among_objects_is_no_header(tmp_path: Path) -> None:
    lines, ignored = read(tmp_path / "a", OBJECT + "broken\n" + ROW + OBJECT, "gorse")
    error = "no JSON object, and there is no header that names the columns of a row"
    assert brief(lines) == [(1, "pot"), (2, error), (3, error), (4, "pot")]
    assert ignored == 0


def test_broken_line_before_objects_is_no_header(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "a", "broken\n" + OBJECT * 2, "gorse")
    assert brief(lines) == [(1, "neither a JSON object nor the header of a row"), (2, "pot"), (3, "pot")]


def test_stray_quote_among_objects_takes_no_object_with_it(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "a", OBJECT + '"broken\n' + OBJECT + OBJECT, "gorse")
    assert [line.number for line in lines if line.error is None] == [1, 3, 4]


def test_header_with_broken_quotes_is_no_crash(tmp_path: Path) -> None:
    lines, _ = read(tmp_path / "a", '"feedback_type"x,user_id\n' + ROW, "gorse")
    assert [line.error for line in lines] == ["4 columns instead of 0"]
