"""Audit: known vulnerabilities of the packages in the image, from the advisory service that pip-audit asks.

`make audit` runs this file. Exit code 0: every package was looked up, and none has a known vulnerability. 1: there are
vulnerabilities. 2: the service did not answer for every package, so nothing is proven.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
CLEAN, VULNERABLE, NO_ANSWER = 0, 1, 2


class AuditResult(NamedTuple):
    """Outcome of an audit: the exit code, and the sentences to print."""

    exit_code: int
    sentences: list[str]


def main() -> None:
    """Ask the service, print the result, and exit with its code."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(REQUIREMENTS), "--require-hashes"]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    result = judge(done.stdout, done.stderr)
    print("\n".join(result.sentences))
    sys.exit(result.exit_code)


def judge(report: str, errors: str) -> AuditResult:
    """Return the result of pip-audit's output.

    Args:
        report: Standard output of pip-audit: JSON, or nothing where the service cannot be reached.
        errors: Standard error of pip-audit.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        reason = (errors.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        return AuditResult(NO_ANSWER, [f"The advisory service does not answer: {reason}", _ADVICE])
    vulnerable = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if vulnerable:
        advice = "Raise the versions in constraints.txt, then run `make hashes`."
        return AuditResult(VULNERABLE, [*vulnerable, advice])
    if unknown or not packages:
        answered = f"The advisory service answered for {len(packages) - len(unknown)} of {len(packages)} packages"
        return AuditResult(NO_ANSWER, [f"{answered}; no answer for {', '.join(unknown) or 'any'}.", _ADVICE])
    return AuditResult(CLEAN, [f"{len(packages)} packages, no known vulnerability."])


_ADVICE = "Nothing is proven: run `make audit` where the Python package index and its advisories can be reached."

if __name__ == "__main__":
    main()
