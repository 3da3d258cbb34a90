"""Record what the command shows in a terminal: ``python docs/recordings.py`` writes ``docs/command.svg`` anew.

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
BEFORE = (
    "put main/countries --parents",
    """put main/countries/de name=Germany population=83 capital='{"name": "Bonn"}' languages='["de"]'""",
    """put main/countries/jp name=Japan population=125 capital='{"name": "Tokyo"}' languages='["ja"]'""",
    "put main/countries/yu name=Yugoslavia",
)
SHOWN = ("list main/countries", "plan main/countries countries.jsonl --delete")
ROWS = (
    '{"id": "de", "name": "Germany", "population": 84, "capital": {"name": "Berlin"}, "languages": ["de"]}\n'
    '{"id": "jp", "name": "Japan", "population": 125, "capital": {"name": "Tokyo"}, "languages": ["ja"]}\n'
    '{"id": "hr", "name": "Croatia", "population": 4}\n'
)


def main() -> None:
    """Write the picture."""
    shown: list[str] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer.memory() as server, listening(server) as url:
        Path(folder, "countries.jsonl").write_text(ROWS, "utf-8")
        for line in (*BEFORE, *SHOWN):
            text = run(line, folder, url)
            if line in SHOWN:
                shown.append(f"$ kinto-orm {line}\n{text}")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi("\n".join(shown)))
    svg = console.export_svg(title="kinto-orm", unique_id="kinto-orm")
    # Without the fonts that it would fetch from elsewhere.
    (HERE / "command.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), "utf-8")


def run(line: str, folder: str, url: str) -> str:
    """Run a command in a terminal; return what it shows."""
    environment = {**os.environ, "KINTO_SERVER": url, "KINTO_AUTH": "alexis:p4ssw0rd", "TERM": "xterm"}
    environment |= {"COLUMNS": str(WIDTH), "PYTHONPATH": str(HERE.parent)}
    environment.pop("NO_COLOR", None)
    program = f"{sys.executable} -c 'import sys; from kinto_orm.cli import main; sys.exit(main())' {line}"
    terminal, end = pty.openpty()
    # Without the bars, which are gone when it has ended.
    subprocess.run(
        ["bash", "-c", program], cwd=folder, env=environment, stdout=end, stderr=subprocess.DEVNULL, check=False
    )
    os.close(end)
    pieces = []
    with suppress(OSError):  # Linux ends it so
        while piece := os.read(terminal, 1 << 16):
            pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode().replace("\r\n", "\n").rstrip("\n") + "\n"


if __name__ == "__main__":
    main()
