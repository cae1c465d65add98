"""What is known of an entity, as one vector: its id, its feature columns, all rows of one embedding table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recdistill.models.tables import TableFactory
from recdistill.types import Features


class Fields(nn.Module):
    """The fields of one side, all rows of one table: the id, then each categorical and multi-valued column.

    An entity is looked up as one bag a field, so that a side costs one exchange whatever its number of fields.
    """

    def __init__(self, table: TableFactory, name: str, num_rows: int, features: Features, dim: int) -> None:
        super().__init__()
        base = num_rows
        columns = []
        for column, codes in features.categorical.items():
            columns.append((np.arange(num_rows + 1, dtype=np.int64), codes + base))
            base += features.sizes[column]
        for column, (offsets, codes) in features.multi.items():
            columns.append((offsets, codes + base))
            base += features.sizes[column]
        self.width = 1 + len(columns)
        lengths = [np.ones(num_rows, dtype=np.int64), *(np.diff(o) for o, _ in columns)]
        counts = np.stack(lengths, axis=1)  # [rows, fields]
        starts = np.concatenate([[0], np.cumsum(counts.reshape(-1))])
        values = np.empty(starts[-1], dtype=np.int64)
        values[starts[:-1].reshape(counts.shape)[:, 0]] = np.arange(num_rows)
        for f, (_offsets, codes) in enumerate(columns, start=1):
            at = np.repeat(starts[:-1].reshape(counts.shape)[:, f], counts[:, f])
            within = np.arange(counts[:, f].sum()) - np.repeat(np.cumsum(counts[:, f]) - counts[:, f], counts[:, f])
            values[at + within] = codes
        self.register_buffer("counts", torch.from_numpy(counts), persistent=False)
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("values", torch.from_numpy(values), persistent=False)
        numeric = np.stack(list(features.numeric.values()), axis=1) if features.numeric else np.zeros((num_rows, 0))
        self.register_buffer("numeric", torch.from_numpy(numeric.astype(np.float32)), persistent=False)
        self.table = table(name, base, dim)
        self.dim = dim

    @property
    def size(self) -> int:
        """Width of an entity's vector: its fields' embeddings, then its numeric columns."""
        return self.width * self.dim + self.numeric.shape[1]

    def bags(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return table rows and bag lengths of entities `rows` [n] (-1: empty bags), `width` bags each."""
        counts = self.counts[rows.clamp(min=0)] * (rows >= 0).unsqueeze(1)
        first = self.starts[rows.clamp(min=0) * self.width]
        total = counts.sum(1)
        at = torch.repeat_interleave(first - (total.cumsum(0) - total), total)
        at = at + torch.arange(len(at), device=rows.device)
        return self.values[at], counts.reshape(-1)

    def assemble(self, looked_up: Tensor, rows: Tensor) -> Tensor:
        """Return the vectors of entities `rows` [n] from the sums of their bags [n*width,D], averaged: [n,size]."""
        counts = self.counts[rows.clamp(min=0)].clamp(min=1).unsqueeze(2)
        fields = (looked_up.view(len(rows), self.width, self.dim) / counts).flatten(1)
        numeric = self.numeric[rows.clamp(min=0)] * (rows >= 0).unsqueeze(1)
        return torch.cat([fields, numeric], dim=1)
