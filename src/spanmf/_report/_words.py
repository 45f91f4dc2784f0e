"""What the labels of a page are called: tissue domains, or types of cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """One kind of labels, in the words of the page."""

    one: str
    many: str
    are: str  # in brackets, behind their number
    about: str
    intro: str
    only_one: str
    caution: str

    @property
    def title(self) -> str:
        """Their name at the start of a line."""
        return self.many.capitalize()


DOMAINS = Words(
    "domain",
    "domains",
    "areas whose cells have alike mixtures of factors",
    "gene expression and position",
    "A domain is an area whose cells have alike mixtures of factors. Domains are found from gene expression and "
    "position alone and are numbered by size; a number is no diagnosis, and the same number in another run may "
    "be another domain.",
    "There is one domain only: more come with a higher `resolution`, or with `n_domains`.",
    "domains are no diagnosis, and whoever knows the tissue has the last word.",
)
TYPES = Words(
    "cell type",
    "cell types",
    "groups of cells with alike mixtures of factors, named by markers",
    "RNA, protein and markers",
    "Cells with alike mixtures of factors are grouped, and a group has the name of the type whose markers stand out in it, by RNA "
    "and protein together. A cell that one of the two lacks is judged by the other. “Unknown”: no type's markers stand out. A name is "
    "what the markers suggest, no more.",
    "There is one cell type only: give other `markers`, or more factors.",
    "names of types are no diagnosis, and whoever knows the tissue has the last word.",
)
