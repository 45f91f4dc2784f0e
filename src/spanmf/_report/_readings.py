"""What each number says in plain words, between which ends it lies, and what else moves it.

A reading describes; it does not pass sentence. Where a number is high by construction the words say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .._format import number, percent

Values = Mapping[str, float]  # all the numbers of one key, for readings that need a second one


@dataclass(frozen=True)
class Reading:
    """A metric in words."""

    title: str
    ends: str  # its range
    says: Callable[[float, Values], str]
    moved_by: str
    is_share: bool = False

    def value(self, value: float) -> str:
        """The number as it is printed."""
        return percent(value) if self.is_share else number(value)

    def text(self, value: float, values: Values) -> str:
        """The sentence, or that there is no number."""
        return "Not computed." if math.isnan(value) else self.says(value, values)


def grade(steps: Mapping[float, str], above: str) -> Callable[[float], str]:
    """A word for a value: that of the first step it does not exceed."""

    def word(value: float) -> str:
        return next((text for limit, text in steps.items() if value <= limit), above)

    return word


def _fixed(text: str) -> Callable[[float, Values], str]:
    """The same sentence for every value."""
    return lambda value, values: text.format(value=number(value), share=percent(value))


def _edge_agreement(value: float, values: Values) -> str:
    expected = values.get("edge_agreement_expected", math.nan)
    chance = "" if math.isnan(expected) else f"; labels without any spatial order would reach {percent(expected)}"
    return f"{percent(value)} of neighbouring pairs of cells (by weight) share their label{chance}."


def _morans_i(value: float, values: Values) -> str:
    null = values.get("morans_i_null", math.nan)
    chance = (
        "" if math.isnan(null) else f" The same values at random places, treated alike, would reach {number(null)}."
    )
    return f"Mean over the factors: {number(value)}, where 0 is no spatial order and 1 is perfectly smooth.{chance}"


def _chaos_normalized(value: float, values: Values) -> str:
    extra = value - 1
    if extra < 0.005:
        return "A cell's nearest cell of the same label is as near as its nearest cell of any label."
    return (
        f"A cell's nearest cell of the same label is on average {percent(extra)} farther away than its nearest cell "
        "of any label."
    )


_overlap = grade(
    {-0.05: "many cells lie closer to another label", 0.05: "labels pass into each other",
     0.25: "labels are told apart, with much overlap", 0.5: "labels are fairly well apart"},
    "labels are well apart",
)  # fmt: skip
_agreement = grade(
    {0.05: "hardly more than by chance", 0.3: "some agreement", 0.6: "much agreement", 0.9: "close agreement"},
    "nearly the same division",
)


MORAN = (
    "Circular for factors that were smoothed over this graph: smoothing lifts even pure noise. What counts is the distance "
    "from the value at random places. A wider radius changes it."
)
SPATIAL = "Smoothing makes labels more compact by construction; fewer clusters do so too."

READINGS: dict[str, Reading] = {
    "edge_agreement": Reading(
        "Neighbours that share a label", "0 to 100 %", _edge_agreement,
        "Fewer and more unequal clusters raise it, and what chance gives as well. " + SPATIAL, is_share=True,
    ),
    "edge_agreement_expected": Reading(
        "… expected by chance", "0 to 100 %", _fixed("What the line above would be if labels were shuffled: {share}."),
        "The number and the sizes of the clusters alone.", is_share=True,
    ),
    "edge_agreement_z": Reading(
        "… in standard deviations above chance", "any number",
        _fixed("{value} standard deviations above shuffled labels. Nearly any labelling of a tissue has a large value."),
        "Grows with the square root of the number of cells, so it cannot be compared between tissues.",
    ),
    "chaos": Reading(
        "CHAOS: distance within a label", "0 to about 4",
        _fixed("Mean distance to the nearest cell of the same label is {value} standard deviations of the coordinates."),
        "Falls with the number of cells whatever the labels are: compare labelings of the same cells only. " + SPATIAL,
    ),
    "chaos_normalized": Reading(
        "CHAOS, relative to the spacing of cells", "1 and above", _chaos_normalized,
        "Number of clusters; cell number and density cancel. " + SPATIAL,
    ),
    "pas": Reading(
        "PAS: cells in foreign company", "0 to 100 %",
        _fixed("{share} of cells have mostly cells of other labels among their ten nearest."),
        "Fewer clusters lower it; small or thin structures that are real raise it. " + SPATIAL, is_share=True,
    ),
    "asw": Reading(
        "Silhouette in space", "−1 to 1",
        lambda v, _: f"In space alone, {_overlap(v)}. Tissue domains wind around each other, so low values are usual.",
        "Favours few round patches: a duct wall or a crypt scores low however well it was found.",
    ),
    "morans_i": Reading(
        "Moran's I: smoothness of the factors", "about −1 to 1",
        _morans_i, MORAN,
    ),
    "morans_i_null": Reading(
        "… at random places", "about 0 to 1",
        _fixed("What smoothing alone gives: the factors' values put at random places and smoothed again reach {value}."),
        "How strongly was smoothed, and over how many neighbours.",
    ),
    "gearys_c": Reading(
        "Geary's C: smoothness of the factors", "0 to about 2",
        _fixed("Mean over the factors: {value}, where 1 is no spatial order and 0 is perfectly smooth."), "As for Moran's I: circular for factors that were smoothed over this graph.",
    ),
    "silhouette": Reading(
        "Silhouette of the factors", "−1 to 1", lambda v, _: f"In the space of the factors, {_overlap(v)}.",
        "Favours few, round, equally wide clusters; smoothing raises it; it says nothing about space and is a poor guide "
        "to the number of domains.",
    ),
    "davies_bouldin": Reading(
        "Davies–Bouldin index of the factors", "0 and above",
        _fixed("Each label's width plus that of its closest rival, over the distance between them: {value} on average."),
        "Number of clusters and components; smoothing lowers it.",
    ),
    "marker_coherence": Reading(
        "Marker coherence (CMC)", "0 to 100 %",
        _fixed("Within a label, a cell expresses on average {share} of that label's marker genes."),
        "Depth and abundance: a gene that is expressed everywhere is expressed within the label, too. Read it beside the "
        "specificity.", is_share=True,
    ),
    "marker_coherence_weighted": Reading(
        "Marker coherence, weighted by cells", "0 to 100 %",
        _fixed("As the line above, large labels counting more: {share}."), "As the line above.", is_share=True,
    ),
    "marker_exclusion_rate": Reading(
        "Cells with stronger foreign markers (MER)", "0 to 100 %",
        _fixed("{share} of cells express the markers of another label clearly more than those of their own."),
        "More labels raise it (random ones of L labels reach about 1 − 1/L), and so do related labels that share markers.", is_share=True,
    ),
    "n_marker_negative": Reading(
        "Cells without a marker of their own", "0 to all cells", _fixed("{value} cells express no marker gene of their own label."),
        "Depth and the size of the panel.",
    ),
    "marker_specificity": Reading(
        "Marker specificity", "−1 to 1",
        _fixed("A label's marker genes are expressed by {share} more of its cells than of all others (in percentage points; 0 is chance)."),
        "Depth: deep cells express abundant genes everywhere, and the difference closes.", is_share=True,
    ),
    "enrichment": Reading(
        "Gene sets found in the markers", "0 to 10 (capped)",
        _fixed("Median over labels of −log10 of the best adjusted p-value: {value} (1.3 is p = 0.05)."),
        "The number and sizes of the gene sets, and the panel: a targeted panel holds genes chosen for such sets.",
    ),
    "reconstruction_error": Reading(
        "Reconstruction error", "0 and above", _fixed("Mean squared difference between the values and what the factors rebuild: {value}."),
        "More factors always lower it; the scale of the values and their noise set its size; smoothing raises it.",
    ),
    "explained_variance": Reading(
        "Variance explained", "up to 100 %",
        _fixed("The factors rebuild {share} of the variance of the values. Much of the rest is counting noise."),
        "More factors always raise it; shallow data lower it; smoothing lowers it a little. It is no measure of truth.", is_share=True,
    ),
    "ari": Reading(
        "Agreement with known labels (ARI)", "−0.5 to 1",
        lambda v, _: f"{_agreement(v).capitalize()} with the known labels (0 is chance, 1 is the same division).",
        "Depends on the number of clusters on either side; a finer division that is right still loses.",
    ),
    "nmi": Reading(
        "Agreement with known labels (NMI)", "0 to 1",
        lambda v, _: f"{_agreement(v).capitalize()} with the known labels (1 is the same division).",
        "Not corrected for chance: more clusters raise it.",
    ),
    "homogeneity": Reading(
        "Homogeneity", "0 to 1", _fixed("1 if every domain holds cells of one known label only: {value}."),
        "More clusters raise it.",
    ),
    "completeness": Reading(
        "Completeness", "0 to 1", _fixed("1 if every known label lies in one domain only: {value}."),
        "Fewer clusters raise it.",
    ),
    "n_clusters": Reading(
        "Number of labels", "1 and above", _fixed("{value} labels."), "Chosen by the number or resolution asked for.",
    ),
}  # fmt: skip


def reading(metric: str) -> Reading:
    """The reading of a metric; a plain one where it has none."""
    plain = Reading(metric.replace("_", " "), "", _fixed("{value}."), "")
    return READINGS.get(metric, plain)
