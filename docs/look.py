"""``make docs-look``: pictures of every page in two widths, and the faults that a browser sees.

Needs the built pages (``make docs``) and chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from urllib.parse import quote, urldefrag, urljoin

from file_host import serve_files

BUILT = Path(__file__).parent / "_build"
WIDTHS = (1280, 400)
"""Pixels: a desktop and a phone."""

FOUND_BY_SEARCH = {
    "upsert": "models",
    "export": "backup",
    "transaction": "unit-of-work",
    "async": "async",
    "pandas": "dataframes",
    "backup": "backup",
    "csv": "sync",
    "permission": "permissions",
}
"""Words that readers search for, and the page that must be among the first results."""
FIRST_RESULTS = 5

READ_PAGE = """
(() => {
  const main = document.querySelector("article") || document.body;
  const wide = [...main.querySelectorAll("*")].filter(
    one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest("pre, .table-wrapper, p.wide, svg"));
  const tables = [...main.querySelectorAll(".table-wrapper")].filter(one => one.scrollWidth > one.clientWidth + 1);
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: wide.slice(0, 3).map(one => `<${one.tagName.toLowerCase()}> ${one.textContent.slice(0, 60).trim()}`),
    tables: tables.map(one => [one.scrollWidth, one.clientWidth, one.querySelector("tr").innerText.slice(0, 60)]),
    text: main.innerText,
    height: document.documentElement.scrollHeight,
    ids: [...document.querySelectorAll("[id]")].map(one => one.id),
    links: [...document.querySelectorAll("a[href]")].map(one => one.getAttribute("href")),
    samples: main.querySelectorAll("div.highlight").length,
    buttons: main.querySelectorAll("button.copybtn").length,
    loaded: performance.getEntriesByType("resource").map(one => one.name),
    broken: [...main.querySelectorAll("img")].filter(one => !one.naturalWidth).map(one => one.src),
  };
})()
"""
SEARCH_RESULTS = """
new Promise(done => {
  const read = () => [...document.querySelectorAll("#search-results ul.search li a")].map(one => one.href);
  const wait = left => setTimeout(() => {
    const isReady = /finished|did not match/.test(document.querySelector("#search-results").innerText);
    isReady || !left ? done(read()) : wait(left - 1);
  }, 100);
  wait(100);
})
"""
LEAK = re.compile(r"^\s*(?:```|:::|~~~).*|\]\([\w#./-]+\)|\{[a-z-]+\}`.*", re.MULTILINE)
"""Markup that a reader should not see."""


class Browser:
    """A headless chromium, driven through a pair of pipes.

    https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, executable: str, profile: str) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]

        def place_pipes() -> None:  # chromium reads commands from 3 and answers to 4
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [executable, *arguments, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place_pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out: IO[bytes] = os.fdopen(ours_out, "wb")
        self._in: IO[bytes] = os.fdopen(ours_in, "rb")
        self._number = 0
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._read()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]  # type: ignore[no-any-return]  # JSON

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("chromium ended")
            message += byte
        return json.loads(message)  # type: ignore[no-any-return]  # JSON

    def go(self, url: str, width: int) -> None:
        """Load a page in a window of that width, and wait until it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=url)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited where it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def picture(self, path: Path, width: int, height: int) -> None:
        """Write a picture of the whole page."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the process."""
        self.ask("Browser.close")
        self._process.wait(timeout=20)


@dataclass(slots=True)
class Report:
    """Faults of the pages, and the links that lead elsewhere."""

    faults: list[str]
    external: set[str]
    pages: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at every page; return 1 where there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--html", type=Path, default=BUILT / "html", help="the built pages (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, default=BUILT / "look", help="default: %(default)s")
    parser.add_argument("--chromium", default="chromium", help="the browser (default: %(default)s)")
    parser.add_argument("pages", nargs="*", help="names of pages, such as index; all, unless given")
    options = parser.parse_args(arguments)
    if not (options.html / "index.html").exists():
        parser.error(f"{options.html} has no pages: make docs")
    options.pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as profile, serve_files(options.html) as host:
        browser = Browser(options.chromium, profile)
        try:
            report = look(browser, host.url, options.html, options.pictures, options.pages)
        finally:
            browser.close()
    for link in sorted(report.external):
        print(f"external: {link}")
    for fault in report.faults:
        print(f"FAULT {fault}")
    print(f"{report.pages} pages, {len(report.faults)} faults, {len(report.external)} external links.")
    print(f"Look at the pictures: {options.pictures}")
    return 1 if report.faults else 0


def look(browser: Browser, address: str, html: Path, pictures: Path, names: Sequence[str]) -> Report:
    """Take the pictures, and gather what is wrong."""
    report = Report([], set())
    paths = sorted(path for path in html.rglob("*.html") if path.parent.name != "_modules")
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        name = path.relative_to(html).with_suffix("").as_posix()
        if names and name not in names:
            continue
        for width in WIDTHS:
            browser.go(address + quote(f"{name}.html"), width)
            page = found[name] = browser.evaluate(READ_PAGE)
            browser.picture(pictures / f"{name}-{width}.png", width, page["height"])
            report.faults += [f"{name} at {width} px: {fault}" for fault in layout_faults(page)]
        report.faults += [f"{name}: {fault}" for fault in content_faults(page, address)]
    report.pages = len(found)
    if not names:
        report.faults += link_faults(found, address, report.external)
        report.faults += search_faults(browser, address)
    return report


def layout_faults(page: dict[str, Any]) -> Iterator[str]:
    """Yield what sticks out of the window."""
    if page["overflow"] > 0:
        yield f"{page['overflow']} px wider than the window"
    for element in page["wide"]:
        yield f"sticks out: {element}"
    for total, visible, head in page["tables"]:
        yield f"a table of {total} px in {visible} px: {head!r}"


def content_faults(page: dict[str, Any], address: str) -> Iterator[str]:
    """Yield what a reader of the page would stumble over, in whatever width."""
    for leak in LEAK.findall(page["text"]):
        yield f"markup leaks: {leak!r}"
    if page["buttons"] != page["samples"]:
        yield f"{page['samples']} samples, {page['buttons']} copy buttons"
    for url in page["loaded"]:
        if not url.startswith((address, "data:")):
            yield f"loads {url}"
    for image in page["broken"]:
        yield f"picture is missing: {image}"


def link_faults(found: dict[str, dict[str, Any]], address: str, external: set[str]) -> Iterator[str]:
    """Yield the links to pages and anchors that are not there; collect those that lead elsewhere."""
    for name, page in found.items():
        for link in dict.fromkeys(page["links"]):
            target, anchor = urldefrag(urljoin(f"{address}{name}.html", link))
            if not target.startswith(address):
                external.add(target)
                continue
            other = target.removeprefix(address).removesuffix(".html") or "index"
            if other not in found:
                if not other.startswith(("_sources/", "_modules/")):
                    yield f"{name}: dead link {link}"
            elif anchor and anchor not in found[other]["ids"]:
                yield f"{name}: dead anchor {link}"


def search_faults(browser: Browser, address: str) -> Iterator[str]:
    """Yield the words by which the search does not find the page where they are explained."""
    for word, page in FOUND_BY_SEARCH.items():
        browser.go(f"{address}search.html?q={quote(word)}", WIDTHS[0])
        results = [
            urldefrag(url)[0].removeprefix(address).split(".html")[0] for url in browser.evaluate(SEARCH_RESULTS)
        ]
        first = list(dict.fromkeys(results))[:FIRST_RESULTS]
        if page not in first:
            yield f"search: {word!r} finds {first or 'nothing'}, without {page}"


if __name__ == "__main__":
    sys.exit(main())
