"""One plot: mean accuracy of headline tasks by shots, ours thick, the best peers named, the others grey."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.accuracy.summary import Lines, headline, mean_over
from kusabi.files import write_bytes

COLOURS = ("#1f77b4", "#e68a00", "#2a8c3c", "#7d5bb5", "#40464f")  # of the best peers: none like ours


def draw(
    lines: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int], out: Path
) -> None:
    """Write the plot as SVG; nothing where no method is complete."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    judged = headline(tasks)
    curves = {
        method: means
        for method, of in lines.items()
        if None not in (means := [mean_over(of, judged, n, seeds) for n in shots])
    }
    if not curves:
        return
    order = sorted(curves, key=lambda method: -sum(mean for mean in curves[method] if mean))
    with rc_context({"svg.hashsalt": "kusabi", "font.size": 9}):
        figure = Figure(figsize=(7.5, 4.8), layout="constrained")
        axes = figure.subplots()
        named = 0
        for method in order:
            ours = method == "kusabi"
            best = not method.startswith("kusabi") and named < len(COLOURS)
            label = titles[method] if ours or best else None
            colour = "#b3261e" if ours else COLOURS[named] if best else "#cccccc"
            named += best
            axes.plot(
                range(len(shots)), [100 * (mean or 0) for mean in curves[method]], marker="o", markersize=3,
                linewidth=2.5 if ours else 1.2, color=colour, label=label, zorder=3 if ours else 2 if label else 1,
            )  # fmt: skip
        axes.set_xticks(range(len(shots)), [str(n) for n in shots])
        axes.set_xlabel("labelled pictures a class")
        axes.set_ylabel("mean accuracy, headline tasks, %")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside upper left", ncols=3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes(out, buffer.getvalue())
