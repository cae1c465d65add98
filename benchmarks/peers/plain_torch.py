"""Plain PyTorch, as one writes it: BPR over two embeddings with vectorised sampling, and product, mask and top-k.

Negatives are drawn at once for a batch and those that the user has are drawn again, until none is left. `bare` is the
matrix product of the same shape and nothing else.
"""

import numpy as np
import torch
from worker import Job, serve

USERS_AT_ONCE = 1024


def opened(asked):
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(1)
    data = np.load(asked["data"])
    return torch.from_numpy(data["train"]), data


def sampler(rows, items, batch):
    """Return what draws the users, positives and negatives of the next batch, an epoch after the other."""
    keys = (rows[:, 0] * items + rows[:, 1]).sort().values
    order, at = torch.randperm(len(rows)), 0

    def known(users, wanted):
        key = users * items + wanted
        return keys[torch.searchsorted(keys, key).clamp(max=len(keys) - 1)] == key

    def draw():
        nonlocal order, at
        if at + batch > len(rows):
            order, at = torch.randperm(len(rows)), 0
        users, positives = rows[order[at : at + batch]].T
        at += batch
        negatives = torch.randint(items, (batch,))
        bad = known(users, negatives).nonzero()[:, 0]
        while len(bad):
            negatives[bad] = torch.randint(items, (len(bad),))
            bad = bad[known(users[bad], negatives[bad])]
        return users, positives, negatives

    return draw


def train(asked):
    rows, data = opened(asked)
    dim, batch, steps = asked["dim"], asked["batch"], asked["steps"]
    sparse = asked["optimizer"] == "sparse adagrad"
    users, items = (torch.nn.Embedding(int(data[side]), dim, sparse=sparse) for side in ("users", "items"))
    both = [*users.parameters(), *items.parameters()]
    for weight in both:
        torch.nn.init.normal_(weight, std=0.1)
    makers = {
        "dense adam": lambda: torch.optim.Adam(both, lr=1e-3),
        "fused adam": lambda: torch.optim.Adam(both, lr=1e-3, fused=True),
        "sparse adagrad": lambda: torch.optim.Adagrad(both, lr=0.05),
    }
    optimizer, draw = makers[asked["optimizer"]](), sampler(rows, int(data["items"]), batch)

    def work():
        total = torch.zeros(())
        for _ in range(steps):
            u, p, n = draw()
            left = users(u)
            loss = -torch.nn.functional.logsigmoid((left * items(p)).sum(1) - (left * items(n)).sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        assert torch.isfinite(total)
        return steps * batch

    return Job(work, torch=torch.__version__)


def evaluate(asked):
    rows, data = opened(asked)
    given = np.load(asked["vectors"])
    left, right = torch.from_numpy(given["users"]), torch.from_numpy(given["items"])
    count = len(right)
    starts = torch.from_numpy(np.searchsorted(data["train"][:, 0], np.arange(len(left) + 1)))
    asked_users = torch.from_numpy(np.unique(data["test"][:, 0]))
    truth = torch.from_numpy(data["test"][:, 0] * count + data["test"][:, 1])  # sorted
    relevant = torch.from_numpy(np.bincount(data["test"][:, 0], minlength=len(left)))
    discount = 1 / torch.log2(torch.arange(2, 22))
    ideal = discount.cumsum(0)

    @torch.inference_mode()
    def work():
        gains = []
        for users in asked_users.split(USERS_AT_ONCE):
            scores = left[users] @ right.T
            lengths = starts[users + 1] - starts[users]
            first = lengths.cumsum(0) - lengths
            seen = torch.arange(int(lengths.sum())) + (starts[users] - first).repeat_interleave(lengths)
            scores[torch.arange(len(users)).repeat_interleave(lengths), rows[seen, 1]] = -torch.inf
            top = scores.topk(20).indices
            key = users.unsqueeze(1) * count + top
            hit = truth[torch.searchsorted(truth, key).clamp(max=len(truth) - 1)] == key
            gains.append((hit * discount).sum(1) / ideal[relevant[users].clamp(max=20) - 1])
        job.about["ndcg"] = float(torch.cat(gains).mean())
        return len(asked_users)

    job = Job(work, torch=torch.__version__)
    return job


def bare(asked):
    _, data = opened(asked)
    given = np.load(asked["vectors"])
    users = np.unique(data["test"][:, 0])
    left, right = torch.from_numpy(given["users"][users]), torch.from_numpy(given["items"])
    out = torch.empty(USERS_AT_ONCE, len(right))

    def work():
        for part in left.split(USERS_AT_ONCE):
            torch.mm(part, right.T, out=out[: len(part)])
        return len(users)

    return Job(work, torch=torch.__version__)


if __name__ == "__main__":
    serve({"train": train, "evaluate": evaluate, "bare": bare})
