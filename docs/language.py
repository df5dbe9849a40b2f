"""Language check: measure names, docstrings and the README against limits, and list the worst findings.

`make check` runs it. The limits are those of well-read Python projects: in httpx, bytewax, structlog and sqlite-utils
less than 0.8 % of the bound names are function words, less than 1.5 % of the docstrings start with a preposition or a
relative word, and 1.6 to 2.8 % of the words in docstrings stand for another word.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "model", "export", "stream", "backtest", "retraining")
FOLDERS = (*PACKAGES, "bench", "docs", "deploy", "tests/chaos")

MAX_FUNCTION_WORD_NAMES = 0.8  # percent of bound names
MAX_FRAGMENTS = 1.0  # percent of docstrings
MAX_PRO_FORMS = 3.5  # percent of the words in docstrings
MIN_EXPLAINED = 90.0  # percent of public functions with MANY_PARAMETERS or more
MANY_PARAMETERS = 3
MAX_README_WORDS = 1200
MAX_README_LINES = 150
MAX_FINDINGS = 20  # findings that a broken limit lists: enough to start with, few enough for a terminal

FUNCTION_WORDS = frozenset(
    """
    of at by to from with without above below under between beside behind beyond before after until since during ahead
    what which who whom whose where when why how that this these those one ones other others another mine ours theirs
    some any every each both all most many few several none such so here there again else then now yet
    found asked told said given taken wanted kept heard known named brought held left begun spoken lacking due began
    has is was are were asks says tells speaks knows words place
    """.split()  # noqa: SIM905 (words read better than a list of strings)
)
"""Names without meaning: prepositions, pronouns, adverbs, and verb forms without a noun."""

PRO_FORMS = frozenset(
    "what that which whose those one ones it them its there none nothing others such".split()  # noqa: SIM905
)
"""Pro-forms: words that stand for a noun of another sentence or line."""

FRAGMENT = re.compile(r"(Of|Those|By|Which|As|Where|That|From|To|Below|Above|Between|Beside|In|On|With|At|For)\b")
"""Start of a docstring that is no sentence."""

SHARED_FILE_NAMES = {
    "__init__.py": "Python's name for a package",
    "__main__.py": "Python's name for a program",
    "commands.py": "the command line of a folder",
    "errors.py": "the errors of a folder",
}
"""File names that may occur more than once, each with the reason."""

FOLDERS_OF_SHARED_NAMES = {
    "schemas": "a file of records has the name of the code that works with them",
    "stream/commands": "a file has the name of its command",
}
"""Folders whose files may have the name of a file elsewhere, each with the reason."""


class Finding(NamedTuple):
    """A line of a file, counted against a limit."""

    path: str
    line: int
    text: str


class Measure(NamedTuple):
    """A measured value, the limit of the value, and the findings against the limit."""

    title: str
    value: float
    limit: float
    is_minimum: bool
    """True if the value must reach the limit; false if the value must not exceed the limit."""
    findings: Sequence[Finding]

    @property
    def is_kept(self) -> bool:
        """True if the value keeps the limit."""
        return self.value >= self.limit if self.is_minimum else self.value <= self.limit


class Source(NamedTuple):
    """A Python file: path relative to the repository, and syntax tree."""

    path: str
    tree: ast.Module


def read_sources(folders: Iterable[str]) -> list[Source]:
    """Return the parsed Python files of some folders of the repository, in order of their paths."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def parse(path: str, text: str) -> Source:
    """Return a file as a source."""
    return Source(path, ast.parse(text))


def function_word_names(sources: Iterable[Source]) -> Measure:
    """Measure the share of bound names (variables and parameters) that are bare function words."""
    names = [finding for source in sources for finding in _bound_names(source)]
    bad = [finding for finding in names if finding.text.strip("_") in FUNCTION_WORDS]
    return Measure("names that are function words, %", _percent(bad, names), MAX_FUNCTION_WORD_NAMES, False, bad)


def fragments(sources: Iterable[Source]) -> Measure:
    """Measure the share of docstrings that start with a preposition or a relative word."""
    texts = [finding for source in sources for finding in _docstrings(source)]
    bad = [finding for finding in texts if FRAGMENT.match(finding.text)]
    return Measure("docstrings that are no sentences, %", _percent(bad, texts), MAX_FRAGMENTS, False, bad)


def pro_forms(sources: Iterable[Source]) -> Measure:
    """Measure the share of pro-forms among the words of docstrings. The worst docstrings come first."""
    total, matches = 0, 0
    counted: list[tuple[float, Finding]] = []
    for finding in (finding for source in sources for finding in _docstrings(source)):
        tokens = re.findall(r"[a-z']+", finding.text.lower())
        count = sum(token in PRO_FORMS for token in tokens)
        total, matches = total + len(tokens), matches + count
        if count:
            counted.append((count * count / len(tokens), finding))  # many and dense: the worst to read
    findings = [finding for _, finding in sorted(counted, key=lambda pair: -pair[0])]
    share = 100 * matches / max(1, total)
    return Measure("docstring words that stand for others, %", share, MAX_PRO_FORMS, False, findings)


def explained_parameters(sources: Iterable[Source]) -> Measure:
    """Measure the share of public functions with many parameters with a section `Args` in the docstring.

    Commands are left out: the help of an option explains its parameter.
    """
    functions = [pair for source in sources for pair in _functions_of_many_parameters(source)]
    bad = [finding for finding, text in functions if "Args:" not in text]
    share = 100.0 if not functions else 100 * (len(functions) - len(bad)) / len(functions)
    return Measure("functions of many parameters with `Args:`, %", share, MIN_EXPLAINED, True, bad)


def shared_file_names(sources: Iterable[Source]) -> Measure:
    """Count the files that share their name with another file."""
    by_name: dict[str, list[Finding]] = defaultdict(list)
    for source in sources:
        folder, _, name = source.path.rpartition("/")
        if name not in SHARED_FILE_NAMES and folder not in FOLDERS_OF_SHARED_NAMES:
            by_name[name].append(Finding(source.path, 1, name))
    bad = [finding for findings in by_name.values() if len(findings) > 1 for finding in findings]
    return Measure("files that share a name", len(bad), 0, False, bad)


def shared_class_names(sources: Iterable[Source]) -> Measure:
    """Count the public classes that share their name with another class."""
    by_name: dict[str, list[Finding]] = defaultdict(list)
    for source in sources:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                by_name[node.name].append(Finding(source.path, node.lineno, node.name))
    bad = [finding for findings in by_name.values() if len(findings) > 1 for finding in findings]
    return Measure("classes that share a name", len(bad), 0, False, bad)


def readme_size(text: str) -> list[Measure]:
    """Measure the words and the lines of the README."""
    return [
        Measure("words of the README", len(text.split()), MAX_README_WORDS, False, []),
        Measure("lines of the README", len(text.splitlines()), MAX_README_LINES, False, []),
    ]


def report(measures: Iterable[Measure]) -> str:
    """Return a line for each measure, and the findings against each broken limit."""
    lines: list[str] = []
    for measure in measures:
        verdict = "ok" if measure.is_kept else "BROKEN"
        kind = "at least" if measure.is_minimum else "at most"
        lines.append(f"{verdict:6}  {measure.title}: {measure.value:.2f}, {kind} {measure.limit:g}")
        if not measure.is_kept:
            lines += [f"        {path}:{line}: {text[:90]}" for path, line, text in measure.findings[:MAX_FINDINGS]]
            hidden = len(measure.findings) - MAX_FINDINGS
            lines += [f"        and {hidden} more"] if hidden > 0 else []
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print all measures; exit with 1 if a limit is broken."""
    sources, packages = read_sources(FOLDERS), read_sources(PACKAGES)
    measures = [
        function_word_names(sources),
        fragments(sources),
        pro_forms(sources),
        explained_parameters(sources),
        shared_file_names(packages),
        shared_class_names(packages),
        *readme_size((ROOT / "README.md").read_text(encoding="utf-8")),
    ]
    sys.stdout.write(report(measures))
    sys.exit(not all(measure.is_kept for measure in measures))


def _bound_names(source: Source) -> Iterator[Finding]:
    """Yield each assigned variable and each parameter, except `self` and `cls`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield Finding(source.path, node.lineno, node.id)
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield Finding(source.path, node.lineno, node.arg)


def _docstrings(source: Source) -> Iterator[Finding]:
    """Yield the docstrings of the module, its classes, functions and attributes, each as one line."""
    for node in ast.walk(source.tree):
        body = getattr(node, "body", None)
        for item in body if isinstance(body, list) else []:
            constant = item.value if isinstance(item, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield Finding(source.path, item.lineno, " ".join(constant.value.split()))


def _functions_of_many_parameters(source: Source) -> Iterator[tuple[Finding, str]]:
    """Yield each public function with a docstring and `MANY_PARAMETERS` or more, and its docstring."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if any("command(" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        text = ast.get_docstring(node)
        if text and sum(argument.arg not in ("self", "cls") for argument in arguments) >= MANY_PARAMETERS:
            yield Finding(source.path, node.lineno, node.name), text


def _percent(part: Sequence[Finding], total: Sequence[Finding]) -> float:
    return 100 * len(part) / max(1, len(total))


if __name__ == "__main__":
    main()
