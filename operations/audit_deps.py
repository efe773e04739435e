"""`make audit-deps`: asks an advisory database about the packages that the Lambda package holds.

A build must not fail because the database can't be reached: then it says so, and the exit code is 0.
"""

import json
import subprocess
import sys
from typing import Any

REQUIREMENTS = "requirements.txt"
TIMEOUT_SECONDS = 90


def audit_requirements(requirements: str = REQUIREMENTS) -> int:
    """Print the known vulnerabilities of the pinned packages. Exit code 1 when there is one, else 0."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps", "--disable-pip"]
    try:
        audit = subprocess.run(
            [*command, "--progress-spinner=off", "--format=json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        packages = json.loads(audit.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print(f"{requirements}: NOT audited, the advisory database can't be reached")
        return 0
    return report(requirements, packages)


def report(requirements: str, packages: list[dict[str, Any]]) -> int:
    """Print what pip-audit's JSON says of the packages. Exit code 1 when one has a known vulnerability, else 0."""
    vulnerable = [(package, vulnerability) for package in packages for vulnerability in package.get("vulns", ())]
    for package, vulnerability in vulnerable:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        print(f"{package['name']} {package.get('version')}: {vulnerability['id']}, fixed in {fixed}")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        print(f"{requirements}: NOT audited, the advisory database does not list: {', '.join(unknown)}")
    if not vulnerable and len(unknown) < len(packages):
        print(f"{requirements}: no known vulnerability in {len(packages) - len(unknown)} of {len(packages)} packages")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(audit_requirements())
