"""Compares what an install creates with the kept dump, ci/schema.sql; ``--update`` rewrites it.

A change of the dump is thus seen in review, whether it was meant or not.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

from retally.procedures import install
from retally.sql.connect import connect
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema
from retally.sql.pg_binaries import BINDIR_VARIABLE

KEPT = Path(__file__).with_name("schema.sql")
_OPTIONS = ("--schema-only", "--schema=retally", "--no-owner", "--no-privileges")
# What depends on the version of pg_dump or on the session, not on us.
_NOISE = re.compile(r"^(SET |SELECT pg_catalog\.set_config|\\(un)?restrict |--)")


def dumped() -> str:
    """The schema ``retally`` on a stand-alone farm, as pg_dump tells it."""
    # Each pg_dump words things its own way: always the one of the extra `embedded`.
    os.environ.pop(BINDIR_VARIABLE, None)
    with EmbeddedServer.start(in_memory=True) as server:
        with connect(server.dsn()) as conn:
            create_schema(conn)
            install(conn)
        command: list[str | Path] = [server.bindir / "pg_dump", *_OPTIONS, server.dsn()]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line for line in result.stdout.splitlines() if not _NOISE.match(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def main() -> int:
    now = dumped()
    if "--update" in sys.argv[1:]:
        KEPT.write_text(now, encoding="utf-8")
        return 0
    kept = KEPT.read_text(encoding="utf-8") if KEPT.exists() else ""
    difference = difflib.unified_diff(
        kept.splitlines(), now.splitlines(), "ci/schema.sql", "installed", lineterm=""
    )
    found = False
    for line in difference:
        found = True
        print(line)
    if found:
        print("If the change is meant: python ci/schema.py --update, and commit ci/schema.sql.")
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
