"""TorchRec alone: BPR over two tables of one collection, row-wise Adagrad fused into the backward pass, and no more.

Its batches are made before the clock starts, or each when it is due, by the sampler of the plain PyTorch peer.
"""

import warnings

import numpy as np
import torch
from plain_torch import opened, sampler
from worker import Job, serve

READY = 64  # batches that are made before


def train(asked):
    warnings.simplefilter("ignore")
    import torch.distributed as dist
    import torchrec
    from torch.distributed.optim import _apply_optimizer_in_backward as fuse
    from torchrec.distributed.model_parallel import DistributedModelParallel

    rows, data = opened(asked)
    dim, batch, steps = asked["dim"], asked["batch"], asked["steps"]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    tables = [
        torchrec.EmbeddingBagConfig(name=s, embedding_dim=dim, num_embeddings=int(data[f"{s}s"]), feature_names=[s])
        for s in ("user", "item")
    ]
    ebc = torchrec.EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
    fuse(torchrec.optim.RowWiseAdagrad, ebc.parameters(), {"lr": 0.05, "eps": 1e-8})
    model = DistributedModelParallel(ebc, device=torch.device("cpu"))
    draw = sampler(rows, int(data["items"]), batch)
    ready, at = [draw() for _ in range(READY)] if asked["given"] else [], 0
    # A row of a table is one bag; positives and negatives are one lookup, users padded with as many empty bags.
    lengths = torch.cat([torch.ones(batch), torch.zeros(batch), torch.ones(2 * batch)]).to(torch.int64)

    def work():
        nonlocal at
        total = torch.zeros(())
        for _ in range(steps):
            u, p, n = ready[at % READY] if ready else draw()
            at += 1
            found = model(torchrec.KeyedJaggedTensor(["user", "item"], torch.cat([u, p, n]), lengths=lengths))
            left, right = found["user"][:batch], found["item"]
            loss = -torch.nn.functional.logsigmoid((left * right[:batch]).sum(1) - (left * right[batch:]).sum(1)).mean()
            loss.backward()
            total += loss.detach()
        assert torch.isfinite(total)
        return steps * batch

    return Job(work, torchrec=torchrec.__version__, torch=torch.__version__, numpy=np.__version__)


if __name__ == "__main__":
    serve({"train": train})
