"""The report: one page that names no address outside it, looked at in a real headless Chromium."""

import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from clickscore.backtest.commands import backtest
from tests.backtest.contests import write_log
from tests.browser import CHROMIUM, QUIET, browser_environment, in_chromium
from tests.bundles import small_bundle

pytestmark = pytest.mark.slow

NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
PLOTS = {
    *("ranking", "differences", "hit-rates", "balance", "reliability"),
    *("by-length", "by-answer", "by-user", "by-category", "by-hour"),
}
SVG_IDS = re.compile(r'\bid="([^"]+)"')


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    log, bundle = write_log(folder / "events.jsonl", 4_000, seed=7), small_bundle(folder / "small <b>bold")
    log.write_bytes(log.read_bytes().replace(b'"category":null', b'"category":"chairs"'))
    options = ["--bundle", bundle, "--report", folder / "report.html", "--plots", folder / "plots"]
    options += ["--json-file", folder / "figures.json"]
    done = CliRunner().invoke(backtest, [str(log), "--order", "file", *map(str, options)])
    assert done.exit_code == 0, done.output
    return folder / "report.html"


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_it_names_no_address_outside_it(text: str) -> None:
    assert set(re.findall(r"\bhttps?://[^\s\"'<>]+", text)) <= NAMESPACES  # which nobody fetches
    assert not re.search(r"<(script|link|iframe|img|base)\b|@import|\bsrc=", text)
    assert not re.findall(r"(?:href=\"|url\()(?!#)", text)


def test_names_within_its_plots_are_unique(text: str) -> None:
    names = SVG_IDS.findall(text)
    assert len(names) == len(set(names))
    for name in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
        assert name in names


def test_what_users_named_is_text_and_no_markup(text: str) -> None:
    assert "small &lt;b&gt;bold" in text
    assert "<b>bold" not in text


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def words_of(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    return " ".join(parser.words)


def test_it_says_what_it_is_before_any_figure_of_an_arm(text: str) -> None:
    words = words_of(text)
    assert "It is not the effect that an arm would have" in words
    assert words.index("It is not the effect") < words.index("The arms")
    assert "left out: late: it enters no session" in words
    assert "left out: its session is still open where the log ends" in words
    assert "95 % bootstrap intervals" in words
    assert "all decisions were the same" in words


def test_plots_stand_in_the_page_and_are_files_too(page: Path, text: str) -> None:
    assert {path.stem for path in (page.parent / "plots").glob("*.svg")} == PLOTS
    assert {name for name, _ in re.findall(r'<figure [^>]*id="plot-([\w-]+)"[^>]*><h3>[^<]+</h3>(<svg)', text)} == PLOTS


def test_it_says_which_arms_cannot_be_told_from_the_best(page: Path, text: str) -> None:
    figures = json.loads((page.parent / "figures.json").read_text())
    assert figures["tied"]
    assert f"This log cannot tell it from {figures['tied'][0]!r}" in words_of(text)


def test_same_figures_make_the_same_page(page: Path, text: str) -> None:
    second_page = page.with_name("again.html")
    options = ["--bundle", page.parent / "small <b>bold", "--report", second_page]
    assert (
        not CliRunner()
        .invoke(backtest, [str(page.parent / "events.jsonl"), "--order", "file", *map(str, options)])
        .exit_code
    )
    assert second_page.read_text(encoding="utf-8") == text


class _Proxy(BaseHTTPRequestHandler):
    """Notes who wants to go out."""

    requested_paths: list[str]

    def _refuse(self) -> None:
        if ".google" not in self.path:  # which the browser asks on its own account, whatever it shows
            self.requested_paths.append(self.path)
        self.send_error(502)

    do_GET = do_CONNECT = do_POST = do_HEAD = _refuse  # noqa: N815 (as http.server calls them)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as http.server calls it)
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    requested_paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"requested_paths": requested_paths}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", requested_paths
    server.shutdown()
    server.server_close()
    thread.join()


def chromium(folder: Path, proxy: str, url: str, *arguments: str) -> str:
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",  # as root, in a container
        "--no-first-run",
        *(f"--disable-{name}" for name in QUIET),
        f"--user-data-dir={folder / 'profile'}",
        f"--proxy-server={proxy}",
        "--window-size=1200,1600",
        "--virtual-time-budget=3000",
        *arguments,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=browser_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(page: Path, folder: Path, proxy: str) -> dict[str, float]:
    """What a browser makes of the page: it is told to write it into the page, and the page is read back."""
    script = """<script>
    const boxes = [...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect());
    const tables = [...document.querySelectorAll('table')];
    document.title = JSON.stringify({
      width: document.documentElement.scrollWidth, window: innerWidth, height: document.documentElement.scrollHeight,
      plots: boxes.length, narrowest: Math.min(...boxes.map(box => box.width)),
      lowest: Math.min(...boxes.map(box => box.height)), texts: document.querySelectorAll('svg text').length,
      tables: tables.length, errors: document.querySelectorAll('parsererror').length});
    </script>"""
    probe = folder / "probe.html"
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    dom = chromium(folder, proxy, probe.as_uri(), "--dump-dom")
    match = re.search(r"<title>(\{.*?\})</title>", dom)
    assert match, dom[:500]
    return json.loads(match.group(1))


@in_chromium
@pytest.mark.slow
def test_in_chromium_all_plots_are_drawn_and_nothing_is_fetched(
    page: Path, tmp_path: Path, proxy: tuple[str, list[str]]
) -> None:
    address, requested_paths = proxy
    layout = measured(page, tmp_path, address)
    assert layout["plots"] == len(PLOTS)
    assert layout["narrowest"] > 600
    assert layout["lowest"] > 60
    assert layout["texts"] > 100
    assert layout["tables"] == 3
    assert layout["errors"] == 0
    assert layout["width"] <= layout["window"]  # nothing sticks out at the side
    assert requested_paths == []


@in_chromium
@pytest.mark.slow
def test_proxy_of_the_test_would_see_what_is_fetched(tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    address, requested_paths = proxy
    (tmp_path / "bad.html").write_text('<img src="http://outside.invalid/pixel.png">')
    chromium(tmp_path, address, (tmp_path / "bad.html").as_uri(), "--dump-dom")
    assert requested_paths == ["http://outside.invalid/pixel.png"]


@in_chromium
@pytest.mark.slow
def test_in_chromium_the_page_is_no_blank(page: Path, tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    address, _ = proxy
    shot = tmp_path / "shot.png"
    chromium(tmp_path, address, page.as_uri(), f"--screenshot={shot}")
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 50_000  # an empty page of this size takes 5,000
