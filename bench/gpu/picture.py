"""Draw images a second over clients, against what the parts do alone."""

from pathlib import Path
from typing import Any, Final

from bench.gpu.figures import LIMITS, levels

_COLORS: Final = {"jpegs": "#2b6cb0", "pixels": "#dd6b20"}
_LABELS: Final = {"jpegs": "JPEGs decoded on the GPU", "pixels": "decoded by the gateway"}
_LINES: Final = ("--", ":", "-.")


def draw(path: Path, report: dict[str, Any]) -> str | None:
    """Draw the picture; return the name of its file, or none where matplotlib is missing."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - not on every GPU machine

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - as above
    except ImportError:
        return None
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for mode, color in _COLORS.items():
        found = levels(report, mode)
        if found:
            speeds = [measured["requests_per_s"] for measured in found.values()]
            axes.plot(list(found), speeds, "o-", color=color, label=_LABELS[mode])
    for (what, limit), line in zip(LIMITS.items(), _LINES, strict=True):
        images_per_s = limit(report)
        if images_per_s is not None:
            axes.axhline(images_per_s, color="#4a5568", linestyle=line, label=what)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients, each with one request at a time")
    axes.set_ylabel("images a second")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path.name
