"""Asks whether what the Lambda package holds has known weaknesses. `python -m operations.audit_deps [REQUIREMENTS]`.

A build must not fail because the database is unreachable: then the command prints that, and its exit code is 0.
"""

import json
import subprocess
import sys
from typing import Any

REQUIREMENTS = "requirements.txt"
PATIENCE_SECONDS = 90


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a weakness is known, else 0."""
    requirements = next(iter(sys.argv[1:] if arguments is None else arguments), REQUIREMENTS)
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps", "--disable-pip"]
    try:
        audit = subprocess.run(
            [*command, "--progress-spinner=off", "--format=json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        found = json.loads(audit.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print(f"{requirements}: NOT audited, the advisory database can't be reached")
        return 0
    return say(requirements, found)


def say(requirements: str, found: list[dict[str, Any]]) -> int:
    weak = [(package, vulnerability) for package in found for vulnerability in package.get("vulns", ())]
    for package, vulnerability in weak:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        print(f"{package['name']} {package.get('version')}: {vulnerability['id']}, mended in {fixed}")
    unknown = [package["name"] for package in found if "skip_reason" in package]
    if unknown:
        print(f"{requirements}: NOT audited, the advisory database does not tell: {', '.join(unknown)}")
    if not weak and len(unknown) < len(found):
        print(f"{requirements}: no known weakness in {len(found) - len(unknown)} of {len(found)} packages")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
