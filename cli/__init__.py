"""The command line: one file per command, one for the options they share, one for the errors.

Nothing imports this room. ``main`` is the console command ``retally``.
"""

from retally.cli.main import main

__all__ = ["main"]
