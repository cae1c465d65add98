"""RecBole's own BPR, loops and evaluator, unchanged, over files of its own format that are written first.

What is tuned: the evaluator scores as many users at once as make its matrix 64 MB, which by its default is one user.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
from worker import Job, serve

warnings.simplefilter("ignore")
USERS_AT_ONCE = 400


def prepared(asked):
    """Return RecBole's trainer, and its data of train and of test."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.set_num_threads(asked["threads"])
    root = Path(tempfile.mkdtemp(prefix="recbole-"))
    (root / "log").mkdir()
    data = np.load(asked["data"])
    # It wants three parts; a few rows of train stand for the second, as they are masked anyway.
    for part, rows in (("train", data["train"]), ("valid", data["train"][:10]), ("test", data["test"])):
        header, body = "user_id:token\titem_id:token\n", "\n".join(f"{u}\t{i}" for u, i in rows)
        (root / "log" / f"log.{part}.inter").write_text(header + body + "\n")
    settings = {
        "data_path": str(root),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": asked["dim"],
        "train_batch_size": asked.get("batch", 2048),
        "learning_rate": asked.get("lr", 1e-3),
        "eval_batch_size": USERS_AT_ONCE * int(data["items"]),
        "eval_args": {"order": "RO", "mode": "full", "split": {"RS": [8, 1, 1]}, "group_by": "user"},
        "metrics": ["Recall", "NDCG"],
        "topk": [20],
        "valid_metric": "NDCG@20",
        "use_gpu": False,
        "worker": 0,
        "show_progress": False,
        "checkpoint_dir": str(root / "saved"),
        "reproducibility": True,
        "seed": 1,
    }
    config = Config(model="BPR", dataset="log", config_dict=settings)
    init_seed(1, True)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = BPR(config, train.dataset)
    return Trainer(config, model), train, test, versions()


def versions():
    import recbole
    import torch

    return {"recbole": recbole.__version__, "torch": torch.__version__, "numpy": np.__version__}


class Part:
    """The next `steps` batches of a loader that goes round and round: what the trainer takes for an epoch."""

    def __init__(self, loader, steps):
        self.loader, self.steps, self.rows, self.left = loader, steps, 0, iter(loader)

    def __iter__(self):
        for _ in range(self.steps):
            batch = next(self.left, None)
            if batch is None:
                self.left = iter(self.loader)
                batch = next(self.left)
            self.rows += len(batch)
            yield batch


def train(asked):
    trainer, loader, _, about = prepared(asked)
    part = Part(loader, asked["steps"] or len(loader))

    def work():
        part.rows = 0
        trainer._train_epoch(part, 0)
        return part.rows

    def save(path):
        users, items = (rows(trainer.model, side, loader.dataset) for side in ("user", "item"))
        np.savez(path, users=users, items=items)

    return Job(work, save, **about)


def rows(model, side, dataset):
    """Return the vectors of a side, by our ids; those that it never met are zero."""
    weight = getattr(model, f"{side}_embedding").weight.detach().numpy()
    ids = dataset.field2id_token[f"{side}_id"][1:].astype(np.int64)
    found = np.zeros((ids.max() + 1, weight.shape[1]), np.float32)
    found[ids] = weight[1:]
    return found


def evaluate(asked):
    import torch

    trainer, _, test, about = prepared(asked)
    given = np.load(asked["vectors"])
    for side in ("user", "item"):
        ids = test.dataset.field2id_token[f"{side}_id"][1:].astype(np.int64)
        with torch.no_grad():
            weight = getattr(trainer.model, f"{side}_embedding").weight
            weight[1:] = torch.from_numpy(given[f"{side}s"][ids])
    users = len(np.unique(np.load(asked["data"])["test"][:, 0]))

    def work():
        job.about["ndcg"] = float(trainer.evaluate(test, load_best_model=False)["ndcg@20"])
        return users

    job = Job(work, **about)
    return job


if __name__ == "__main__":
    serve({"train": train, "evaluate": evaluate})
