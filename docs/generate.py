"""Write the tables in `docs/` that repeat what the code says; `--check` fails if one is stale.

A table stands between two marks, `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.table import ENDPOINTS, REQUEST_HEADERS, RESPONSE_HEADERS
from gateway.settings import Settings

DOCS: Final = Path(__file__).parent
BENCH: Final = DOCS.parent / "bench" / "results" / "cpu.json"
_BLOCK: Final = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_table() -> str:
    """One row for each field of `Settings`."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `GATEWAY_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def errors_table() -> str:
    """One row for each class of `gateway.errors`, by status."""
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, GatewayError)
    ]
    rows = ["| status | `error_type` | when | `Retry-After` |", "|---|---|---|---|"]
    for cls in sorted(classes, key=lambda c: (c.status, c.error_type)):
        when = "Anything unforeseen." if cls is GatewayError else inspect.getdoc(cls)
        retry = "–" if cls.retry_after_s is None else f"{cls.retry_after_s} s"
        rows.append(f"| {cls.status} | `{cls.error_type}` | {when} | {retry} |")
    return "\n".join(rows) + "\n"


def families_table() -> str:
    """One row for each family, from the figures of `make families-table`."""
    rows = [
        "| family | precision | max \\|Δscore\\| | best label the same |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| {figure['family']} | {figure['precision']}"
        f" | {figure['max_abs_score_difference']:.0e} | {figure['top1_agreement']:.0%} |"
        for figure in json.loads((DOCS / "families.json").read_text())
    ]
    return "\n".join(rows) + "\n"


def modes_table() -> str:
    """One row for each case and image mode, from the figures of `make bench`."""
    rows = [
        "| pictures | mode | max Δpixel | mean Δpixel | max \\|Δscore\\| | best label the same |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {row['pictures']}: {row['case']} | {row['mode']} | {row['max_pixel_difference']}"
        f" | {row['mean_pixel_difference']:.3f} | {row['max_abs_score_difference']:.0e}"
        f" | {row['top1_agreement']:.1%} |"
        for row in json.loads(BENCH.read_text())["accuracy"]
    ]
    return "\n".join(rows) + "\n"


def endpoints_table() -> str:
    """One row for each answer, with all endpoints that give it."""
    rows = ["| request | answer |", "|---|---|"]
    by_summary: dict[tuple[str, str], list[str]] = {}
    for endpoint in ENDPOINTS:
        by_summary.setdefault((endpoint.method, endpoint.summary), []).append(endpoint.path)
    for (method, summary), paths in by_summary.items():
        rows.append(f"| `{method}` {', '.join(f'`{path}`' for path in paths)} | {summary} |")
    return "\n".join(rows) + "\n"


def request_headers_table() -> str:
    """One row for each header that the gateway reads."""
    rows = ["| request header | in `options` | default | meaning |", "|---|---|---|---|"]
    for header in REQUEST_HEADERS:
        option = f"`{header.option}`" if header.option else "–"
        rows.append(f"| `{header.name}` | {option} | {header.default or '–'} | {header.meaning} |")
    return "\n".join(rows) + "\n"


def response_headers_table() -> str:
    """One row for each header of answers."""
    rows = ["| response header | of | value |", "|---|---|---|"]
    rows += [
        f"| `{header.name}` | {_ANSWERS[header.where]} | {header.meaning} |"
        for header in RESPONSE_HEADERS
    ]
    return "\n".join(rows) + "\n"


_ANSWERS: Final = {"all": "all answers", "classification": "classifications", "error": "errors"}
TABLES: Final[dict[str, Callable[[], str]]] = {
    "endpoints": endpoints_table,
    "requestheaders": request_headers_table,
    "responseheaders": response_headers_table,
    "settings": settings_table,
    "errors": errors_table,
    "families": families_table,
    "modes": modes_table,
}


def main() -> None:
    """Write or check every page that has a generated block."""
    stale = []
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text()
        new = _BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", old)
        if new == old:
            continue
        stale.append(page.name)
        if "--check" not in sys.argv:
            page.write_text(new)
    if stale and "--check" in sys.argv:
        raise SystemExit(f"out of date, run `make generate`: {', '.join(stale)}")
    print(f"docs: {'wrote ' + ', '.join(stale) if stale else 'all generated tables are fresh'}")


if __name__ == "__main__":
    main()
