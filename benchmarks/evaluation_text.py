"""The words of docs/evaluation.md, written by hand after looking at the tables and the maps."""

TITLES = {
    "xenium_breast_tiles": "Xenium, breast cancer, four tiles",
    "starmap_v1_1020": "STARmap, mouse visual cortex",
    "her2st_H1": "Spatial transcriptomics, HER2+ breast cancer",
    "pdac_a_st": "Spatial transcriptomics, pancreatic cancer",
}
HEAD = """\
# Evaluation on real tissues

NMF, three forms of SNMF and hSNMF at rank 10 and resolution 0.4, the baselines that a user would try, and noise that was
sent the same way: all on the same log-normalised values and scored alike by {{func}}`spanmf.metrics.panel` on one graph a tissue,
in the published forms of the metrics (`preset="paper"`) and in the better ones ([](methods.md)). Made by

```bash
export SPANMF_TEST_DATA=…      # folder of the tissues (.h5ad)
export SPANMF_PEERS_PYTHON=…   # python with cellcharter, pybanksy, squidpy, spatialleiden; a peer that it lacks is left out
python benchmarks/run.py --only real_tissues
python benchmarks/run.py --docs   # writes this page and its picture
```

Machine: {cores} cores, {memory:.0f} GiB, {cpu}, one thread, shared with other work; Python {python}; {versions}; peers {peers}. One
seed each; differences of a few hundredths of ARI are within what another seed does ([](domains_evidence.md)).

What is compared:

* **Labels.** NMF and SNMF have none of their own: their *dominant component*, and *Leiden* on the 15 nearest neighbours in their
  rescaled factors (what hSNMF does with α = 0). hSNMF has its domains: by default (refitted H, scaled factors, α = 0.1), as
  published (`preset="paper"`: α = 0.5, unscaled factors), and with the number of domains given (known, or the one that hSNMF found).
* **Peers.** CellCharter on 10 principal components, three hops and its Gaussian mixture (no scVI); BANKSY (λ = 0.8 for domains, 0.2 for
  cell types, 15 neighbours, its Leiden); the flavours of `squidpy.gr.calculate_niche` on Delaunay graphs; Leiden on principal components, which
  knows no space. A method that takes a number of domains got it. Those that run Leiden were run at resolution 1 and, where another one of
  a few resolutions came nearer to that number, at that one too, which only a user who knows the number could choose. Rows that are missing were
  not run: the other three flavours of squidpy, and BANKSY with λ = 0.2 on the sections of spots. (With pynndescent 0.7 scanpy's
  neighbours fail above 8,192 cells, so the runner asks for exact ones.)
* **Noise.** The rows of NMF's factors at random places, smoothed and clustered as hSNMF does (α = 0.5): no biology, the same method.
"""
FIGURE = """\
## Enrichment

Median over clusters of −log10 of the best adjusted p, by `python benchmarks/run.py --only enrichment_real` (not part of the tables below: no library of
gene sets comes with the package, so the sets are its 30 lists of cell markers, and few of them are on a panel). Clusters of 50 cells
or more; dominant components of NMF and SNMF, domains of hSNMF.

| | breast: better form | published | STARmap: better form | published |
|---|---:|---:|---:|---:|
| nmf | 1.95 | 8.94 | 0.55 | 1.83 |
| snmf diffuse | 2.10 | 8.87 | 0.49 | 1.87 |
| snmf refit | 1.95 | 8.87 | 0.18 | 1.83 |
| snmf laplacian | 1.95 | 8.92 | 0.36 | 1.91 |
| hsnmf | 1.95 | 8.68 | 0.55 | 1.83 |
| hsnmf paper | 1.95 | 8.76 | 0.55 | 3.83 |

The better form takes the genes of the panel as background and tells no method from another: with 313 genes chosen as markers there
is little left to enrich. On the breast tumour the published form is over four times as high on every method alike, so that its height says
nothing of a segmentation.

## What the maps show

```{image} _static/evaluation_breast.png
:alt: One tile of the breast tumour, domains by several methods
:width: 100%
```

One of the four tiles (3 × 2 mm); colours follow hSNMF's domains by overlap. On the left tumour (*FOXA1*, *ERBB2*, *FASN*, *KRT7*)
crossed by bands of stroma with T cells (*POSTN*, *CXCR4*, *CD3E*); right of the middle what looks like a lobule: ducts with myoepithelium (*KRT5*, *KRT14*, *KRT15*,
*MYLK*) in fibrous tissue (*LUM*, *CXCL12*), and at its lower end a crescent of lymphocytes (*CD3E*, *IL7R*, *CXCR4*).

* **NMF** is a map of cell types: every one of these structures is there, and none is an area.
* **SNMF** by the dominant component shows tumour and lobule at once, but the bands within the tumour vanish.
* **hSNMF as published** paints the whole lobule – ducts, fibrous tissue and lymphocytes, 1,718 of the 1,719 cells at x 1,700 to 2,380, y 2,350 to 3,600 µm – in one colour and the tumour with its bands in another. It is the
  smoothest of all maps, and the one that tells least.
* **hSNMF** parts the ducts from the tissue around them and the bands from the tumour; with the **number given** the crescent of lymphocytes comes out, too.
* **CellCharter** sees the same areas and the single ducts within the lobule, with more cells astray. **BANKSY** parts ducts and fibrous tissue, and breaks the tumour
  up into small patches of several kinds.
* **Noise** has no areas at all, though its Moran's I is 0.22.

On the cortex (not drawn) hSNMF with the number given draws the layers as the anatomist does; without it the two deepest regions become one and layer 2/3 is cut in two. SpatialLeiden at its defaults
comes next (ARI 0.78 against 0.84, without being told the number). The published form draws three broad bands (hippocampus, white matter and a third of layer 6; the rest of it and layer 5; layers 4
and 2/3) and a corner. BANKSY cuts layers 4 and 2/3 across.
"""
CLAIMS = """\
The paper states of SNMF and hSNMF: Moran's I above 0.96, CHAOS below 0.004, silhouette above 0.12, Davies–Bouldin below
1.8. In the published forms of the metrics, on our tissues (✓ where the statement holds):
"""
CLAIMS_READ = """\
* **Moran's I > 0.96 holds nowhere at the published two steps; where it comes near, the first factor and the smoothing do it.** Over the
  sweep of the breast tumour the mean over the factors is between 0.83 and 0.88, whatever rank and form. On the
  breast tumour the factor that is scored (the first) has 0.62 before any smoothing, 0.94 after two steps of it and 0.97 after four, with nothing
  learnt on the way; the mean over the ten factors goes from 0.36 to 0.84. Rows at random places reach 0.22 after two steps and 0.56 after four, on STARmap's
  smaller tissue 0.20 and 0.68 – and 0.84 after eight. So the *level* says how much was smoothed, how many neighbours a cell has and how large
  the tissue is. Moran's I is not even bounded by 1 on a weighted graph of uneven degrees (the table of single factors reaches 1.3 on the ring).
* **CHAOS < 0.004 is a statement on n.** One label for everything gives 0.0082 on the 34,082 cells, 0.020 on 5,000 of them and 0.061 on 500: it falls
  as 1/√n, and no honest labeling gets below it. Under 0.004 it comes at some 140,000 cells of such a tissue, and ten labels at
  random come below it at 1.2 million. Divided by its floor CHAOS is free of n: 1.04 to 1.12 for hSNMF, 1.9 for NMF, 2.4 for noise.
* **Silhouette > 0.12 and DBI < 1.8 hold best for NMF without any space** (0.29 and 1.2 on the breast tumour), on which the published hSNMF fails both: its Leiden graph
  is half space, so its domains are not clusters of the factors any more. Noise, smoothed and clustered, has 0.11 and 1.9 on the breast tumour: almost there.
  Space left out, both are statements on the clustering: permuting all positions would change none of NMF's values.

By steps and by size:
"""
READING = """\
## What the tables teach

**Does SNMF still win when smoothed noise is the yardstick?** Barely. Its Moran's I of 0.84 (breast tumour) and 0.76 (STARmap) stands far above
the 0.22 that rows at random places reach once smoothed. But `smoothing="diffuse"` is NMF's own components, smoothed: the order that they had before (0.36 and 0.28,
against 0.00 at random places) is lifted like the noise, and the excess is NMF's. Where W is solved anew from the data and nothing is smoothed, the loadings of SNMF give
0.37 to 0.39 where NMF's give 0.36 (breast tumour), and 0.32 to 0.36 where they give 0.28 (STARmap; refitted loadings most). That is what was learnt; the
rest of the rise is the smoothing, and it costs more than a third of the explained variance (0.42 → 0.27, 0.15 → 0.09).

**What is smoothing good for, then? Domains.** With the seven layers of the cortex known, NMF's components agree with them by ARI 0.35, SNMF's by 0.68, and hSNMF with the
number given by 0.84. PAS falls from 0.65 to 0.05. Smoothing does not find better programmes, it turns a map of cells into a map of areas.

**Does the hybrid graph help?** It mends what the published form breaks. On unscaled factors SNMF's Leiden is worse than
NMF's (median ARI of the 25 runs on STARmap 0.16 against 0.32) and half a graph of space lifts it to 0.49. On scaled factors there is nothing to mend: 0.52 without
space, 0.55 with α = 0.1, 0.58 with α = 0.5. At rank 10 and resolution 0.4 the published form finds four domains where there are seven (ARI 0.43). With several samples the spatial half does harm: no edge joins two tiles, so
the domains of the published form follow the tiles (NMI 0.48; 0.32 for α = 0.1, 0.22 for the mixture), and the tumour's areas of T cells become one domain in one tile and another in the next.

**Which numbers moved by smoothing alone?** Moran's I and Geary's C (see below). Silhouette and DBI in each method's own space: on STARmap the silhouette
rises from 0.21 (NMF) to 0.30 (hSNMF), yet in the space of NMF's factors, the same for all, it falls to 0.04. CHAOS, PAS, edge agreement: coarser and smoother is always better, up to the published hSNMF on
the breast tumour (PAS 0.01, edge agreement 0.97), whose map shows least. Specificity of the markers goes the other way (0.54 → 0.28), as it should for areas that are mixtures of cells.
No column is to be maximised alone.

**Can a metric choose the run?** Over the 150 runs on STARmap, CHAOS, PAS and edge agreement rank them well (rank correlations with ARI of 0.72 to 0.77) because
they tell smoothed from unsmoothed; but the run that each of them likes best has three domains and an ARI of 0.36, where the best has 0.77. Silhouette, DBI and the markers do no better
(0.11 to 0.35). Moran's I at least picks a good rank, ten (mean ARI 0.60 over its runs). A front with an explained variance or a specificity in it keeps the runs apart that
are worth a look; it does not name one.
"""
