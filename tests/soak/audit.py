"""Compares the journals of the soak test with Kinto's own history: nothing lost, nothing stored twice, nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

MOST_SHOWN = 10


@dataclass
class Findings:
    """What the audit found."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        """Add a violation."""
        self.violations.append(text)


def audit(url: str, auth: tuple[str, str], folder: Path) -> Findings:
    """Read the journals in the folder, and the history and the records of the server."""
    findings = Findings()
    with requests.Session() as session:
        session.auth = auth
        server = _Server(session, url)
        journals = sorted(folder.glob("w*.jsonl"))
        for journal in journals:
            _audit_thread(journal, server, findings)
        _audit_counter(journals, server, findings)
    return findings


@dataclass(frozen=True)
class _Server:
    session: requests.Session
    url: str

    def rows(self, target: str) -> Iterator[dict[str, Any]]:
        """Yield all rows of a list, page by page."""
        following: str | None = self.url + target
        while following is not None:
            answer = self.session.get(following, timeout=60)
            answer.raise_for_status()
            yield from answer.json()["data"]
            following = answer.headers.get("Next-Page")

    def get(self, target: str) -> dict[str, Any]:
        """Return the data of one object."""
        answer = self.session.get(self.url + target, timeout=60)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    for line in journal.read_text().splitlines():
        yield json.loads(line)


def _audit_thread(journal: Path, server: _Server, findings: Findings) -> None:
    bucket = journal.stem
    outcomes: dict[tuple[str, str], str] = {}
    final: dict[str, str] | None = None
    for line in _lines(journal):
        if "violation" in line:
            findings.complain(f"{bucket}: {line['violation']}")
        elif "final" in line:
            final = line["final"]
        elif "uri" in line:
            write = line["uri"], line["token"]
            # A write in doubt may be stored by the next commit, and was then stored once.
            outcomes[write] = "stored" if "stored" in (outcomes.get(write), line["outcome"]) else line["outcome"]
    written, last = _history(bucket, server)
    _compare(outcomes, written, findings)
    _compare_records(bucket, last, final, server, findings)


def _history(bucket: str, server: _Server) -> tuple[Counter[tuple[str, str]], dict[str, str]]:
    """Return how often each write was stored, and the last one of each record."""
    written: Counter[tuple[str, str]] = Counter()
    last: dict[str, str] = {}
    for entry in server.rows(f"/buckets/{bucket}/history?resource_name=record&_sort=last_modified&_limit=500"):
        token = "deleted" if entry["action"] == "delete" else entry["target"]["data"]["op"]
        # Kinto deletes once what was created once: what is created again may be deleted again, and is no double.
        written[entry["uri"], token] += token != "deleted" or (entry["uri"], token) not in written
        last[entry["uri"]] = token
    return written, last


def _compare(outcomes: dict[tuple[str, str], str], written: Counter[tuple[str, str]], findings: Findings) -> None:
    existed = {uri for uri, _ in written}  # a record whose creation got lost is deleted without a trace
    for write in outcomes.keys() | written.keys():
        outcome, count = outcomes.get(write, "in no journal"), written[write]
        findings.counts[f"writes {outcome}"] += 1
        if outcome == "unknown":
            findings.counts["writes unknown that were stored"] += count
        if count > 1:
            findings.complain(f"stored {count} times: {write}, {outcome}")
        elif outcome == "stored" and count == 0 and (write[1] != "deleted" or write[0] in existed):
            findings.complain(f"lost: {write}")
        elif outcome in ("refused", "in no journal") and count:
            findings.complain(f"stored, although {outcome}: {write}")


def _compare_records(
    bucket: str, last: dict[str, str], final: dict[str, str] | None, server: _Server, findings: Findings
) -> None:
    records = {row["id"]: row["op"] for row in server.rows(f"/buckets/{bucket}/collections/c/records?_limit=500")}
    findings.counts["records at the end"] += len(records)
    expected = {uri.rpartition("/")[2]: token for uri, token in last.items() if token != "deleted"}
    if records != expected:
        findings.complain(f"{bucket}: the records are not what the history says: {_difference(records, expected)}")
    if final is None:
        findings.complain(f"{bucket}: the thread did not come to its end")
    elif records != final:
        findings.complain(f"{bucket}: the records are not what the thread knows: {_difference(records, final)}")


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    ids = sorted(id for id in one.keys() | other.keys() if one.get(id) != other.get(id))
    return ", ".join(f"{id}: {one.get(id)} and {other.get(id)}" for id in ids[:MOST_SHOWN])


def _audit_counter(journals: list[Path], server: _Server, findings: Findings) -> None:
    """Check the record in which all threads count: each success increased it once."""
    outcomes = Counter(line["outcome"] for journal in journals for line in _lines(journal) if "shared" in line)
    count = server.get("/buckets/shared/collections/c/records/counter")["n"]
    for outcome, times in outcomes.items():
        findings.counts[f"increments {outcome}"] += times
    least, most = outcomes["stored"], outcomes["stored"] + outcomes["unknown"]
    if not least <= count <= most:
        findings.complain(f"the shared counter is {count}, and not between {least} and {most}")
