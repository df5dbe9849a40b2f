"""The language check finds what breaks each of its limits, and says where."""

import pytest

from docs import language
from docs.language import Measure, Source, parse, report


def module(text: str, path: str = "stream/a.py") -> list[Source]:
    return [parse(path, text)]


def lines(measure: Measure) -> list[tuple[str, int, str]]:
    return [tuple(finding) for finding in measure.findings]


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "for of in ():\n    pass",
        "def f(at):\n    pass",
        "def f(*, one):\n    pass",
        "with open() as left:\n    pass",
        "a = [each for each in ()]",
        "_said = 1",
    ],
)
def test_name_that_is_a_function_word_breaks_the_limit(text: str) -> None:
    assert not language.function_word_names(module(text)).is_kept


def test_names_that_are_nouns_keep_the_limit() -> None:
    measure = language.function_word_names(module("def f(self, position, found_items):\n    remaining = 1"))
    assert measure.is_kept
    assert measure.value == 0


def test_names_are_measured_in_percent() -> None:
    assert language.function_word_names(module("found = 1\na = b = c = 2")).value == 25


def test_finding_has_file_and_line() -> None:
    assert lines(language.function_word_names(module("a = 1\n\nat = 2"))) == [("stream/a.py", 3, "at")]


@pytest.mark.parametrize(
    "text",
    [
        '"""Of the leading run, where it ends."""',
        'class A:\n    """Which items there are."""',
        'def f():\n    """From here on."""',
        'class A:\n    x: int\n    """Of each item."""',
    ],
)
def test_docstring_that_starts_with_a_preposition_breaks_the_limit(text: str) -> None:
    assert not language.fragments(module(text)).is_kept


@pytest.mark.parametrize("text", ["Return the offset.", "Offset of the next record.", "Format of a file.", "Topics."])
def test_docstring_that_is_a_sentence_or_a_noun_keeps_the_limit(text: str) -> None:
    assert language.fragments(module(f'"""{text}"""')).is_kept


def test_docstring_of_pro_forms_breaks_the_limit() -> None:
    measure = language.pro_forms(module('"""Those that others have; none of them is one."""'))
    assert not measure.is_kept
    assert measure.value == pytest.approx(100 * 6 / 9)


def test_docstring_of_nouns_keeps_the_limit() -> None:
    assert language.pro_forms(module('"""Return the offset of the newest record."""')).is_kept


def test_docstring_with_most_pro_forms_comes_first() -> None:
    text = '"""Return what it is."""\ndef f():\n    """Those that others have; none of them is one."""'
    assert [line for _, line, _ in lines(language.pro_forms(module(text)))] == [3, 1]


def test_function_of_many_parameters_without_args_breaks_the_limit() -> None:
    measure = language.explained_parameters(module('def f(a, b, *, c):\n    """Return a."""'))
    assert not measure.is_kept
    assert lines(measure) == [("stream/a.py", 1, "f")]


@pytest.mark.parametrize(
    "text",
    [
        'def f(a, b, c):\n    """Return a.\n\n    Args:\n        a: A.\n    """',
        'def f(a, b):\n    """Return a."""',
        'class A:\n    def f(self, a, b):\n        """Return a."""',
        'def _f(a, b, c):\n    """Return a."""',
        "def f(a, b, c):\n    return a",
        '@click.command()\ndef f(a, b, c):\n    """Print a."""',
    ],
)
def test_function_that_needs_no_args_or_has_them_keeps_the_limit(text: str) -> None:
    assert language.explained_parameters(module(text)).is_kept


def test_two_files_of_one_name_break_the_limit() -> None:
    sources = [parse("model/reader.py", ""), parse("stream/reader.py", ""), parse("stream/a.py", "")]
    measure = language.shared_file_names(sources)
    assert not measure.is_kept
    assert [finding.path for finding in measure.findings] == ["model/reader.py", "stream/reader.py"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("model/__init__.py", "stream/__init__.py"), ("schemas/events.py", "stream/a/events.py")],
)
def test_file_names_with_a_reason_may_be_shared(first: str, second: str) -> None:
    assert language.shared_file_names([parse(first, ""), parse(second, "")]).is_kept


def test_two_classes_of_one_name_break_the_limit() -> None:
    sources = [parse("model/a.py", "class Plan:\n    pass"), parse("stream/b.py", "x = 1\nclass Plan:\n    pass")]
    measure = language.shared_class_names(sources)
    assert not measure.is_kept
    assert lines(measure) == [("model/a.py", 1, "Plan"), ("stream/b.py", 2, "Plan")]


def test_private_classes_may_share_a_name() -> None:
    sources = [parse("model/a.py", "class _Plan:\n    pass"), parse("stream/b.py", "class _Plan:\n    pass")]
    assert language.shared_class_names(sources).is_kept


def test_readme_of_too_many_words_breaks_the_limit() -> None:
    words, length = language.readme_size("word " * (language.MAX_README_WORDS + 1))
    assert not words.is_kept
    assert length.is_kept


def test_readme_of_too_many_lines_breaks_the_limit() -> None:
    words, length = language.readme_size("word\n" * (language.MAX_README_LINES + 1))
    assert words.is_kept
    assert not length.is_kept


def test_report_lists_the_findings_of_a_broken_limit_only() -> None:
    broken = language.function_word_names(module("at = 1", "stream/broken.py"))
    kept = language.fragments(module('"""Return a."""', "stream/kept.py"))
    text = report([broken, kept])
    assert "BROKEN" in text
    assert "stream/broken.py:1: at" in text
    assert "stream/kept.py" not in text


def test_report_says_how_many_findings_it_leaves_out() -> None:
    text = report([language.function_word_names(module("at = 1\n" * (language.MAX_FINDINGS + 2)))])
    assert "and 2 more" in text


def test_sources_of_the_repository_are_read() -> None:
    assert "docs/language.py" in {source.path for source in language.read_sources(["docs"])}
