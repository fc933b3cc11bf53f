"""How the command line speaks: answers on standard output, complaints on standard error."""

from __future__ import annotations

import sys


def complain(what: object) -> None:
    """One line on standard error, as it is: no markup, so that file:line stays clickable."""
    print(str(what), file=sys.stderr)  # noqa: T201
