"""MOFA+ on matrices from a file: ``python mofa_peer.py FOLDER K SEED``; run in an interpreter that has mofapy2."""

import json
import sys
import time

import numpy as np


def main(folder: str, k: int, seed: int) -> None:
    from mofapy2.run.entry_point import entry_point

    data = np.load(f"{folder}/views.npz")
    views = [[data[name].astype(np.float64)] for name in data.files]
    wall, cpu = time.perf_counter(), time.process_time()
    model = entry_point()
    model.set_data_options(scale_views=True)
    model.set_data_matrix(views, views_names=list(data.files))
    model.set_model_options(factors=k)
    model.set_train_options(iter=1000, convergence_mode="fast", seed=seed, verbose=False, quiet=True)
    model.build()
    model.run()
    nodes = model.model.nodes
    size = np.sqrt(sum((W**2).sum(0) for W in nodes["W"].getExpectation()))  # of a factor's loadings in all views
    Z = nodes["Z"].getExpectation() * size  # else factors that explain nothing count as much as those that explain all
    np.save(f"{folder}/Z.npy", Z)
    print("\n" + json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
