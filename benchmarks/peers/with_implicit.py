"""implicit: its BPR (C++, SGD) and its ALS, and its own ranking metrics."""

import numpy as np
from worker import Job, serve


def matrix(data, part):
    from scipy.sparse import csr_matrix

    rows = data[part]
    values = np.ones(len(rows), np.float32)
    return csr_matrix((values, (rows[:, 0], rows[:, 1])), shape=(int(data["users"]), int(data["items"])))


def versions():
    import implicit
    import scipy

    return {"implicit": implicit.__version__, "scipy": scipy.__version__, "numpy": np.__version__}


def saver(model):
    def save(path):
        np.savez(path, users=model.user_factors, items=model.item_factors)

    return save


def bpr(asked):
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    known = matrix(np.load(asked["data"]), "train")
    model = BayesianPersonalizedRanking(
        factors=asked["dim"],
        learning_rate=asked.get("lr", 0.05),
        regularization=asked.get("regularization", 0.01),
        iterations=asked["epochs"],
        num_threads=asked["threads"],
        random_state=1,
    )

    def work():
        model.fit(known, show_progress=False)  # goes on from the factors it has
        return known.nnz * asked["epochs"]

    return Job(work, saver(model), **versions())


def als(asked):
    from implicit.cpu.als import AlternatingLeastSquares

    known = matrix(np.load(asked["data"]), "train")
    model = AlternatingLeastSquares(
        factors=asked["dim"],
        alpha=asked["alpha"],
        regularization=asked["regularization"],
        iterations=asked["epochs"],
        num_threads=asked["threads"],
        random_state=1,
    )

    def work():
        model.fit(known, show_progress=False)
        return known.nnz * asked["epochs"]

    return Job(work, saver(model), **versions())


def evaluate(asked):
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.evaluation import ranking_metrics_at_k

    data, given = np.load(asked["data"]), np.load(asked["vectors"])
    model = AlternatingLeastSquares(factors=given["users"].shape[1])
    model.user_factors, model.item_factors = given["users"], given["items"]
    known, wanted = matrix(data, "train"), matrix(data, "test")
    users = len(np.unique(data["test"][:, 0]))

    def work():
        found = ranking_metrics_at_k(model, known, wanted, K=20, show_progress=False, num_threads=asked["threads"])
        job.about["ndcg"] = float(found["ndcg"])
        return users

    job = Job(work, **versions())
    return job


if __name__ == "__main__":
    serve({"bpr": bpr, "als": als, "evaluate": evaluate})
