"""The command line: ``kinto-orm``.

Each verb is a few lines over the library: what the command can do, the library can.
"""

from kinto_orm.cli.program import COMMANDS, main

__all__ = ["COMMANDS", "main"]
