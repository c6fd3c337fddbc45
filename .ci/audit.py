"""Look the installed packages up in the advisories of PyPI with pip-audit: `PYTHON .ci/audit.py`.

Exit code 0 if every package was looked up and none has a known vulnerability, 1 if one has, 3 if they could not all be
looked up: pip-audit itself calls a package that the service did not answer for "skipped" and ends with 0. The
interpreter is that of `.ci/environment audit`: what Tailrace needs to run, and pip-audit.
"""

from __future__ import annotations

import json
import subprocess
import sys

LIMIT = 120  # seconds
VULNERABLE, UNKNOWN = 1, 3


def main() -> int:
    """Say what was found."""
    command = ["-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=LIMIT)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return unknown(f"no answer of the advisory service ({type(error).__name__})")
    bad = [package for package in packages if package.get("vulns")]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    for package in bad:
        ids = ", ".join(one["id"] for one in package["vulns"])
        print(f"VULNERABLE: {package['name']} {package['version']}: {ids}", file=sys.stderr)
    if bad:
        return VULNERABLE
    if skipped:
        return unknown(f"the advisory service did not answer for {len(skipped)} of {len(packages)} packages")
    print(f"{len(packages)} packages, no known vulnerability", file=sys.stderr)
    return 0


def unknown(why: str) -> int:
    print(f"NOT AUDITED: {why}; run `make audit` where it can be reached", file=sys.stderr)
    return UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
