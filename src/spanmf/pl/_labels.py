"""Text beside points, placed so that it covers neither other text nor points."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from ._colors import ink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

DISTANCES = (2, 8, 16, 26, 38, 52, 70)  # points from the rim of the marker
ANGLES = np.deg2rad([35, 145, -35, -145, 90, -90, 0, 180, 62, 118, -62, -118, 15, 165, -15, -165])
NEAR = 8  # beyond this a line leads to the point
PAD = 1.5  # points between one text and another


def label_points(
    ax: Axes,
    points: np.ndarray,
    radii: np.ndarray,
    chosen: Sequence[int],
    texts: Sequence[str],
    *,
    path: np.ndarray | None = None,
    **style: object,
) -> list[Annotation]:
    """Put a text beside each ``chosen`` point (n × 2, in data units; ``radii`` of all markers in points).

    ``path`` is a line of horizontal and vertical pieces (corners × 2) that is to stay free, too.

    Greedy: the first text takes the place it likes best, of places around its point at growing distances, and so on.
    A place that covers a text or leaves the axes is never taken; one that covers a marker or the path only if there is no other. A
    text that finds none is left out. The axes must have their final limits and place on the figure.
    """
    figure = ax.figure
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    centres = ax.transData.transform(points)
    obstacles = [Bbox.from_bounds(x - r, y - r, 2 * r, 2 * r) for (x, y), r in zip(centres, radii * scale, strict=True)]
    if path is not None and len(path) > 1:
        corners = ax.transData.transform(path)
        obstacles += [Bbox([np.minimum(a, b), np.maximum(a, b)]) for a, b in pairwise(corners)]
    frame = ax.get_window_extent(renderer)
    taken: list[Bbox] = []
    out = []
    for i, text in zip(chosen, texts, strict=True):
        note = ax.annotate(
            text, points[i], xytext=(0, 0), textcoords="offset points", ha="center", va="center", zorder=5, **style,
            arrowprops={"arrowstyle": "-", "color": ink(0.5), "linewidth": 0.6, "shrinkA": 0, "shrinkB": radii[i]},
        )  # fmt: skip
        size = _text_extent(note, renderer)
        best = None
        for distance, offset in _places(size.width / scale, size.height / scale, float(radii[i])):
            box = Bbox.from_bounds(
                *(centres[i] + scale * offset - (size.width / 2, size.height / 2)), size.width, size.height
            )
            if not (frame.containsx(box.x0) and frame.containsx(box.x1)):
                continue
            if not (frame.containsy(box.y0) and frame.containsy(box.y1)) or any(box.overlaps(b) for b in taken):
                continue
            covered = sum(box.overlaps(m) for m in obstacles)
            if best is None or covered < best[0]:
                best = covered, distance, offset, box
            if covered == 0:
                break
        if best is None:
            note.remove()
            continue
        _, distance, offset, box = best
        note.set_position(offset)
        note.arrow_patch.set_visible(distance > NEAR)
        taken.append(box.padded(PAD * scale))
        out.append(note)
    return out


def _text_extent(note: Annotation, renderer: object) -> Bbox:
    """Extent of the text alone, without the line to its point."""
    note.arrow_patch.set_visible(False)
    return note.get_window_extent(renderer)


def _places(width: float, height: float, radius: float) -> Iterator[tuple[float, np.ndarray]]:
    """Centres of a text around its point, in points: the nearer the better."""
    for distance in DISTANCES:
        reach = radius + distance
        for angle in ANGLES:
            direction = np.array([np.cos(angle), np.sin(angle)])
            # the box touches a circle of this reach from outside
            yield distance, direction * reach + np.sign(direction.round(6)) * np.array([width, height]) / 2
