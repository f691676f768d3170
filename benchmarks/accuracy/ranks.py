"""Where methods stand in every cell of headline tasks: 1 is best, ties share the mean of their places."""

import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks.accuracy.summary import OURS, Lines, cell_mean, headline, worst_against_zero_shot
from kusabi.files import write_bytes


def ranks(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Places of every method that was measured everywhere, best on average first; one for each task and shots."""
    cells = list(product(headline(tasks), shots))
    means = {method: [cell_mean(of, task, n, seeds) for task, n in cells] for method, of in lines.items()}
    whole = [method for method, of in means.items() if None not in of]
    if not whole or not cells:
        return {}
    # Rounded, since equal counts of right answers may differ in the last bit of their means.
    places = np.array([rankdata([-round(means[method][at] or 0, 9) for method in whole]) for at in range(len(cells))])
    found = {method: places[:, number].tolist() for number, method in enumerate(whole)}
    return dict(sorted(found.items(), key=lambda item: float(np.mean(item[1]))))


def draw_ranks(
    lines: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int], out: Path
) -> None:
    """Write both pictures as one SVG: places, and the worst case against zero-shot; nothing where no row is whole."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = ranks(lines, tasks, shots, seeds)
    if not found:
        return
    with rc_context({"svg.hashsalt": "kusabi", "font.size": 8}):
        figure = Figure(figsize=(9, 1 + 0.19 * len(found)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for row, (method, places) in enumerate(found.items()):
            colour = "#b3261e" if method == OURS else "#c98a86" if method.startswith(OURS) else "#3f4a5a"
            left.plot(places, [row] * len(places), ".", color=colour, alpha=0.35, markersize=5, markeredgewidth=0)
            left.plot([float(np.mean(places))], [row], "D", color=colour, markersize=4)
            if worst := worst_against_zero_shot(lines, method, seeds):
                right.barh([row], [worst[0]], color=colour, height=0.6)
        left.set_yticks(range(len(found)), [titles[method] for method in found])
        left.invert_yaxis()
        left.set_xlabel("place in a task at a number of shots (diamond: mean)")
        right.set_xlabel("worst mean difference to zero-shot, points")
        right.axvline(0, color="#3f4a5a", linewidth=0.8)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes(out, buffer.getvalue())
