"""LightFM without features: its BPR (Cython, Adagrad, a thread each)."""

import numpy as np
from worker import Job, serve


def bpr(asked):
    from importlib.metadata import PackageNotFoundError, version

    from lightfm import LightFM
    from scipy.sparse import coo_matrix

    data = np.load(asked["data"])
    rows, size = data["train"], (int(data["users"]), int(data["items"]))
    known = coo_matrix((np.ones(len(rows), np.float32), (rows[:, 0], rows[:, 1])), shape=size)
    model = LightFM(no_components=asked["dim"], loss="bpr", learning_rate=0.05, random_state=1)

    def work():
        model.fit_partial(known, epochs=asked["epochs"], num_threads=asked["threads"])
        return known.nnz * asked["epochs"]

    about = {}
    for name in ("lightfm", "lightfm-next"):
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            continue
    return Job(work, **about)


if __name__ == "__main__":
    serve({"bpr": bpr})
