"""`python -m tests.fuzz`: send a million values through the product, and print one table of what became of them."""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.brokers import running_broker
from tests.fuzz.bundles import fuzz_graph, fuzz_import, fuzz_items, fuzz_manifest
from tests.fuzz.gateway import REQUESTS, fuzz_gateway
from tests.fuzz.live import Shares, fuzz_live
from tests.fuzz.readers import (
    LINES,
    RESUMED_LINES,
    ROWS,
    fuzz_container,
    fuzz_mapping,
    fuzz_parquet_bytes,
    fuzz_parquet_rows,
    fuzz_resume,
    fuzz_text,
)
from tests.fuzz.relayed import RECORDS, fuzz_relay
from tests.fuzz.runner import Report, Target, run_case, run_target

KEPT = Path("build/fuzz")
MEBIBYTES_OF_MODELS = 1_000
"""Memory bound of a process that loads graphs: ONNX Runtime and the package onnx alone take 300 MB."""

TARGETS: dict[Target, int] = {
    Target("lines of text files", fuzz_text, LINES): 374_600,
    Target("resumed text files", fuzz_resume, RESUMED_LINES): 50_000,
    Target("packed and broken files", fuzz_container): 10_000,
    Target("mappings", fuzz_mapping): 10_000,
    Target("relayed records", fuzz_relay, RECORDS): 20_000,
    Target("rows of Parquet files", fuzz_parquet_rows, ROWS): 90_000,
    Target("broken Parquet files", fuzz_parquet_bytes): 300,
    Target("requests to a gateway", fuzz_gateway, REQUESTS, seconds=120): 20_000,
    Target("manifests", fuzz_manifest, megabytes=MEBIBYTES_OF_MODELS): 3_000,
    Target("item lists", fuzz_items, megabytes=MEBIBYTES_OF_MODELS): 1_000,
    Target("graphs", fuzz_graph, megabytes=MEBIBYTES_OF_MODELS): 400,
    Target("imported graphs", fuzz_import, megabytes=MEBIBYTES_OF_MODELS): 700,
}
"""Targets without a broker, and the number of values of each among a million."""

LIVE = Shares(events=390_000, reference=20_000, requests=10_000)
"""Values of a live worker among a million."""

TOTAL = 1_000_000


def main() -> None:
    """Run, print the table, and exit with 1 if anything is off."""
    options = _options()
    if options.case:
        name, _, number = options.case.rpartition(":")
        sys.exit(_run_one(name, f"{options.seed}:{name}:{number}"))
    print(f"seed {options.seed}, {options.values:,} values", flush=True)
    began_at = time.monotonic()
    deadline = began_at + options.minutes * 60
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    reports: list[Report] = []
    if not options.only or "live" in options.only:
        shares = Shares(*(max(1, share * options.values // TOTAL) for share in LIVE))
        with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder)) as broker:
            for report in fuzz_live(broker, options.seed, shares):
                reports.append(report)
                _print(report)
    for target, share in TARGETS.items():
        if not options.only or target.name in options.only:
            values = max(1, share * options.values // TOTAL)
            reports.append(run_target(target, values, options.seed, kept=KEPT, deadline=deadline))
            _print(reports[-1])
    _print_sum(reports, time.monotonic() - began_at)
    is_short = not options.only and sum(report.sent for report in reports) < options.values
    if is_short:
        print(f"not all values were sent within {options.minutes} minutes")
    sys.exit(is_short or not all(report.is_good for report in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--values", type=int, default=TOTAL, help="Number of values, about; default: %(default)s.")
    parser.add_argument("--seed", default=str(secrets.randbelow(10**9)), help="Seed; a new one by default.")
    parser.add_argument("--minutes", type=float, default=45, help="Bound of the time; default: %(default)s.")
    parser.add_argument("--only", action="append", help="Name of a target, or `live`; may be given again.")
    parser.add_argument("--case", metavar="TARGET:NUMBER", help="Run one case of a target here, and print its verdict.")
    return parser.parse_args()


def _run_one(name: str, seed: str) -> int:
    target = next(target for target in TARGETS if target.name == name)
    KEPT.mkdir(parents=True, exist_ok=True)
    verdict = run_case(target.run, seed, KEPT)
    print(dict(verdict.outcomes), verdict.fault, verdict.crash, f"its files are in {KEPT}")
    return int(bool(verdict.fault or verdict.crash))


def _print(report: Report) -> None:
    outcomes = " + ".join(f"{name} {count:,}" for name, count in report.outcomes.most_common())
    print(
        f"{report.name:<26} {report.sent:>9,} sent = {outcomes or 'nothing'}; "
        f"crashes {len(report.crashes)}, stuck {len(report.stuck)}, faults {len(report.faults)}"
        + (f"; {report.megabytes} MB" if report.megabytes else ""),
        flush=True,
    )
    for kind in ("crashes", "stuck", "faults"):
        for text in getattr(report, kind)[:5]:
            print(f"    {kind}: {text}", flush=True)


def _print_sum(reports: list[Report], seconds: float) -> None:
    sent = sum(report.sent for report in reports)
    outcomes = sum(report.outcomes.total() for report in reports)
    crashes = sum(len(report.crashes) for report in reports)
    stuck = sum(len(report.stuck) for report in reports)
    faults = sum(len(report.faults) for report in reports)
    print(
        f"{'all':<26} {sent:>9,} sent, {outcomes:,} outcomes; crashes {crashes}, stuck {stuck}, faults {faults}; "
        f"{seconds / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main()
