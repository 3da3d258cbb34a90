"""``make bench``: the results of ``run.py``, as the table and the plots of ``docs/performance.md``; ratios only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import calls_text, target_text
from run import RESULT
from tasks import Target

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- up to here -->"
HEAD = """
| Work | Where | How | CPU | wall | memory | calls | target |
|---|---|---|---|---|---|---|---|
"""
OURS, REFERENCE = "#4c72b0", "#c44e52"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    measured = json.loads(options.result.read_text("utf-8"))
    before, _, rest = options.page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "".join(f"{line}\n" for line in rows(measured["tasks"]))
    written = f"{before}{BEGIN}\n\n{_versions(measured['machine'])}\n{HEAD}{lines}\n{END}{after}"
    options.page.write_text(written, "utf-8")
    for name, measure in (("cpu", "cpu_to_reference"), ("wall", "wall_to_reference")):
        draw(measured["tasks"], measure, options.page.with_name(f"performance-{name}.svg"))
    print(f"{options.page} and the plots beside it are written.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, default=RESULT, help="what run.py wrote (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: %(default)s)")
    return parser.parse_args(arguments)


def _versions(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"Python {machine['python']}, {machine['processors']} processors; {versions}."


def rows(tasks: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of the table: each contestant but the reference, whose ratio is 1."""
    for task in tasks.values():
        name = f"{task['title']} ({task['count']:,})"
        for line in task["contestants"][1:]:
            cells = (name, task["server"], line["name"], *_ratios(line), _calls(line), _target(line))
            yield f"| {' | '.join(cells)} |"
            name = ""


def _ratios(line: Mapping[str, Any]) -> tuple[str, str, str]:
    growth = "" if line["growth"] is None else f"{line['growth']:.1f} times"
    return f"{line['cpu_to_reference']:.2f}", f"{line['wall_to_reference']:.2f}", growth


def _calls(line: Mapping[str, Any]) -> str:
    return "" if line["calls"] is None else calls_text(line["calls"], line["most_calls"])


def _target(line: Mapping[str, Any]) -> str:
    return (
        "" if line["target"] is None else target_text(Target(**line["target"]), line["reached"], is_met=line["is_met"])
    )


def draw(tasks: Mapping[str, Any], measure: str, path: Path) -> None:
    """Draw bars, one for each contestant but the reference, which is the line at 1."""
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"  # as text

    bars = [
        (f"{task['title']} ({task['server']}): {line['name']}", line[measure], line["target"])
        for task in tasks.values()
        for line in task["contestants"][1:]
        if line["name"].startswith("kinto_orm")
    ]
    figure, axes = pyplot.subplots(figsize=(10, 0.25 * len(bars) + 1))
    axes.margins(y=0.01)
    places = range(len(bars))
    axes.barh(places, [ratio for _, ratio, _ in bars], color=OURS)
    for place, (_, ratio, target) in zip(places, bars, strict=True):
        axes.text(ratio, place, f" {ratio:.2f}", va="center", fontsize=9)
        if target is not None and f"{target['measure']}_to_{target['of']}" == measure:
            axes.plot([target["limit"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.axvline(1, color=REFERENCE)
    axes.set_yticks(places, [name for name, _, _ in bars], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"{measure.removesuffix('_to_reference')} time, kinto-http = 1; black: the target")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
