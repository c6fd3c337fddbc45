"""Build the servers which the tests run against: `python -m tests.services.install [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.services.recipes import ONLY_FOR_BENCH, RECIPES, InstallError, ensure, printer

__all__ = ["InstallError", "ensure", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Install the named servers (without names: all that tests need); 1 if one cannot be built."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.install", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    names = parser.parse_args(arguments).names or [name for name in RECIPES if name not in ONLY_FOR_BENCH]
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        parser.error(f"no such server: {', '.join(unknown)} (there are {', '.join(RECIPES)})")
    for position, name in enumerate(names, 1):
        say = printer(RECIPES[name], position, len(names))
        try:
            ensure(name, say)
        except InstallError as error:
            print(error, file=sys.stderr)
            return 1
        say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
