"""The second check of the prose, beside ruff's D401: ``python tests/check_prose.py``, run by ``tox -e lint``.

Reads docstrings and comments of the package, tests, benchmarks and examples, and the texts of errors; the prose of the
pages, and of the README and its neighbours.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("kinto_orm", "tests", "benchmarks", "examples")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
THIS_FILE = Path(__file__).resolve()

FIRST_WORDS = frozenset({"What", "Whether", "Whoever", "The", "A", "An", "Nothing"})
"""Words that no docstring of a function starts with: it starts with an imperative verb."""

VAGUE = re.compile(
    r"\b(whoever|somebody|nobody|meanwhile|comes? to|came to|of (?:its|their|our|his|her) own)\b", re.IGNORECASE
)
"""Words that hide the actor."""

PLAIN_USES = re.compile(r"\b(?:when|until|before|where) it comes to\b|\bcomes? to (?:rest|light)\b", re.IGNORECASE)

LONGEST_PARAGRAPH = 80
LONGEST_SENTENCE = 45
"""Words: more of them are a wall of text."""

FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-:]|\d+\.) )")
"""Between two paragraphs, or items of a list."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module


def check(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the fault of each sentence that breaks a rule."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            yield from check_docstring(node)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield from check_texts(node.exc)
    yield from check_attribute_docstrings(tree)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from vague(token.start[0], "comment", token.string)


def check_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the fault of each vague word, long paragraph and long sentence of a page in Markdown."""
    prose = FENCE.sub(lambda found: re.sub(r".", " ", found[0]), text)
    for number, line in enumerate(prose.splitlines(), 1):
        yield from vague(number, "page", CODE.sub("", line))
    prose = re.sub(r"^\|.*", "", prose, flags=re.MULTILINE)  # a table is no paragraph
    for paragraph in BREAK.split(prose):
        line = prose.count("\n", 0, prose.index(paragraph)) + 1
        if (length := len(paragraph.split())) > LONGEST_PARAGRAPH:
            yield line, f"paragraph of {length} words: break it, or make it a list"
        for sentence in re.split(r"(?<=[.:;!?])\s+", paragraph):
            if (length := len(sentence.split())) > LONGEST_SENTENCE:
                yield line, f"sentence of {length} words: {sentence[:40]!r}…"


def check_docstring(node: Documented) -> Iterator[tuple[int, str]]:
    """Yield the faults of one docstring."""
    docstring = ast.get_docstring(node)
    if not docstring:
        return
    line = node.body[0].lineno
    first = re.match(r"\w+", docstring)
    if isinstance(node, Function) and not is_property(node) and first and first[0] in FIRST_WORDS:
        yield line, f"docstring of {node.name}() starts with {first[0]!r}: start with an imperative verb"
    yield from vague(line, "docstring", docstring)


def check_attribute_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the faults of strings that stand below an assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.Module):
            for before, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(before, ast.Assign | ast.AnnAssign) and is_text(after):
                    yield from vague(after.lineno, "docstring", ast.literal_eval(ast.unparse(after)))


def check_texts(raised: ast.expr) -> Iterator[tuple[int, str]]:
    """Yield the faults of the texts inside a raised error."""
    for node in ast.walk(raised):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from vague(node.lineno, "error text", node.value)


def vague(line: int, where: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield a fault for each vague word of a text."""
    for found in VAGUE.finditer(PLAIN_USES.sub("", text)):
        yield line, f"{where} says {found[0]!r}: name the actor"


def is_property(node: Function) -> bool:
    """Return whether the function is a property, whose docstring is a noun phrase, or a pytest fixture."""
    return any("property" in ast.unparse(one) or "fixture" in ast.unparse(one) for one in node.decorator_list)


def is_text(node: ast.stmt) -> bool:
    """Return whether the statement is a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def files(path: Path) -> list[Path]:
    """Return the modules and pages in a folder, or the one file."""
    found = [one for ending in ("py", "md") for one in path.rglob(f"*.{ending}")] if path.is_dir() else [path]
    return sorted(one for one in found if "_build" not in one.parts)


def main() -> int:
    """Print every fault; return 1 if there is one."""
    paths = [path for name in sys.argv[1:] or (*FOLDERS, *PAGES) for path in files(ROOT / name) if path != THIS_FILE]
    faults = [
        (path, line, fault)
        for path in paths
        for line, fault in (check(path) if path.suffix == ".py" else check_page(path.read_text("utf-8")))
    ]
    for path, line, fault in faults:
        print(f"{path.relative_to(ROOT)}:{line}: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
