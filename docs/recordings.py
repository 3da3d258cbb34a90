"""Record what the command shows in a terminal: ``python docs/recordings.py`` writes ``docs/command*.svg`` anew.

Each command runs in a separate terminal, against a real Kinto that is started for it; rich draws what it shows.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kinto_orm.server import EmbeddedServer, listening

HERE = Path(__file__).parent
WIDTH = 90
SHOWN = {
    "command": (
        "list main/countries",
        "plan main/countries countries.jsonl --delete",
    ),
    "command-objects": (
        "get main/countries/de",
        "update main/countries/de population=84 --remove languages",
        "delete main/countries --filter has_population=true --yes",
    ),
    "command-buckets": (
        "dump main backup --horizon 0.1",
        "load backup --as restored",
        "update restored/countries/de population=85",
        "diff restored/countries main/countries",
    ),
    "command-management": (
        "permissions main/countries --grant record:create=account:bob",
        "history main --limit 4",
        "schema push main/countries schema.json",
        "schema check main/countries strict.json",
    ),
}
"""The pictures, and what each shows; one goes on where the one before it ended."""
BEFORE = (
    "put main/countries --parents",
    """put main/countries/de name=Germany population=83 capital='{"name": "Bonn"}' languages='["de"]'""",
    """put main/countries/jp name=Japan population=125 capital='{"name": "Tokyo"}' languages='["ja"]'""",
    "put main/countries/yu name=Yugoslavia",
)
FILES = {
    "countries.jsonl": '{"id": "de", "name": "Germany", "population": 84, "capital": {"name": "Berlin"}, '
    '"languages": ["de"]}\n'
    '{"id": "jp", "name": "Japan", "population": 125, "capital": {"name": "Tokyo"}, "languages": ["ja"]}\n'
    '{"id": "hr", "name": "Croatia", "population": 4}\n',
    "schema.json": '{"type": "object", "properties": {"name": {"type": "string"}, "population": {"type": "integer"}}, '
    '"required": ["name"]}',
    "strict.json": '{"type": "object", "required": ["population"]}',
}


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer.memory() as server, listening(server) as url:
        for name, text in FILES.items():
            Path(folder, name).write_text(text, "utf-8")
        for line in BEFORE:
            run(line, folder, url)
        for name, lines in SHOWN.items():
            draw(name, "\n".join(f"$ kinto-orm {line}\n{run(line, folder, url)}" for line in lines))


def draw(name: str, shown: str) -> None:
    """Write a picture of what a terminal shows."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(shown))
    svg = console.export_svg(title="kinto-orm", unique_id="kinto-orm")
    # Without the fonts that it would fetch from elsewhere.
    (HERE / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), "utf-8")


def run(line: str, folder: str, url: str) -> str:
    """Run a command in a terminal; return what it shows."""
    environment = {**os.environ, "KINTO_SERVER": url, "KINTO_AUTH": "alexis:p4ssw0rd", "TERM": "xterm"}
    environment |= {"COLUMNS": str(WIDTH), "PYTHONPATH": str(HERE.parent)}
    environment.pop("NO_COLOR", None)
    program = f"{sys.executable} -c 'import sys; from kinto_orm.cli import main; sys.exit(main())' {line}"
    terminal, end = pty.openpty()
    # Messages without the bars, which are gone when it has ended.
    done = subprocess.run(
        ["bash", "-c", program], cwd=folder, env=environment, stdout=end, stderr=subprocess.PIPE, check=False
    )
    os.close(end)
    pieces = []
    with suppress(OSError):  # Linux ends it so
        while piece := os.read(terminal, 1 << 16):
            pieces.append(piece)
    os.close(terminal)
    return b"".join([*pieces, done.stderr]).decode().replace("\r\n", "\n").rstrip("\n") + "\n"


if __name__ == "__main__":
    main()
