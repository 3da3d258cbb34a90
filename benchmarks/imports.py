"""How long ``import kinto_orm`` takes beside what it is made of: fresh processes, in turn; medians."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

IMPORTS = (
    "import requests, pydantic",
    "import requests; from pydantic import BaseModel, TypeAdapter",  # pydantic imports its parts when they are named
    "import kinto_orm",
    "import kinto_http",
)
ROUNDS = 15


def main() -> None:
    seconds: dict[str, list[float]] = {names: [] for names in IMPORTS}
    for _ in range(ROUNDS):
        for names, taken in seconds.items():
            taken.append(_import(names))
    reference = median(seconds[IMPORTS[0]])
    for names, taken in seconds.items():
        print(f"{names:62} {median(taken) * 1000:6.0f} ms {median(taken) / reference:5.2f}")


def _import(names: str) -> float:
    code = f"import time; t = time.process_time(); {names}; print(time.process_time() - t)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
