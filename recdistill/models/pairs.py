"""The ranker as a scorer of many pairs: the function of `Ranker.forward`, each part paid for as rarely as can be.

What depends on the item alone (its fields, its query) is computed once a catalogue, what depends on the user alone
once a user. The first layer over [p, c, a, p*c, a*c] is split: with the person p fixed it is linear in c, a and a*c,
so a pair costs three parts of five and one product with a matrix made for the user. The last cross is folded into
the heads: a sum over its output is an inner product of two thin vectors that the first layer gives. Features run
along rows and candidates along columns, so that every product is one large matrix, in bfloat16 if asked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recdistill.models.ranker import Cross, Ranker
from recdistill.types import Past

ROWS = 16_384  # items whose own part is computed at once
PAIRS = 4096  # of a tile, whose numbers then stay in the processor's cache


class PairScorer:
    """Scores of any candidates of any users, from a trained ranker whose weights do not change."""

    @torch.inference_mode()
    def __init__(self, model: Ranker, num_items: int, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype, self.num_items = model.eval(), dtype, num_items
        each = model.dim // model.heads
        things, queries, identities = list[Tensor](), list[Tensor](), list[Tensor]()
        for start in range(0, num_items, ROWS):
            rows = torch.arange(start, min(start + ROWS, num_items))
            entity = model.item.assemble(model.item.table(*model.item.bags(rows)), rows)
            identities.append(entity[:, : model.dim])
            things.append(model.thing(entity).to(dtype))
            queries.append((model.query(identities[-1]) * each**-0.5).to(dtype))
        self.identity = torch.cat(identities)  # [I,D]
        self.things, self.queries = torch.cat(things), torch.cat(queries)  # [I,D]
        self.wide = self.things.T.contiguous(), self.queries.T.contiguous()  # [D,I], where the whole catalogue is asked
        self.layers = _arranged(model, dtype)

    @torch.inference_mode()
    def __call__(self, users: Tensor, past: Past, items: Tensor | None) -> Tensor:
        """Return the scores of `items` [B,K], of the whole catalogue if None, for `users` [B]: [B,K]."""
        before = self.identity[past.items.clamp(min=0)] * (past.items >= 0).unsqueeze(2)
        person, values = self.model.people(users, past), before.to(self.dtype)
        keys, lean = self.model.key(before).to(self.dtype), self.model.leaning(past).to(self.dtype)
        width = self.num_items if items is None else items.shape[1]
        scores = torch.empty(len(users), width)
        tall = max(1, min(len(users), PAIRS // max(1, width)))
        for top in range(0, len(users), tall):
            some = slice(top, top + tall)
            first, offset = self.layers.of_users(person[some])
            for left in range(0, width, PAIRS // tall):
                part = slice(left, left + PAIRS // tall)
                c, q = self._candidates(None if items is None else items[some, part], part)
                a = self._attend(q, keys[some], values[some], lean[some])
                logits = self.layers.logits(person[some], c.expand_as(a), a, first, offset)
                scores[some, part] = self.model.blend(logits.transpose(1, 2))
        return scores

    def _candidates(self, items: Tensor | None, part: slice) -> tuple[Tensor, Tensor]:
        """Return the things and the queries of a tile, [B or 1,D,K]."""
        if items is None:
            return self.wide[0][None, :, part], self.wide[1][None, :, part]
        rows = items.clamp(min=0)
        return self.things[rows].transpose(1, 2), self.queries[rows].transpose(1, 2)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, lean: Tensor) -> Tensor:
        """Return what candidates find in the history, [B,D,K]: queries [B or 1,D,K], keys and values [B,L,D]."""
        heads = self.model.heads
        key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (keys, values))  # [B,H,L,D/H]
        logits = torch.matmul(key, queries.unflatten(1, (heads, -1))) + lean.unsqueeze(3)
        return torch.matmul(value.transpose(2, 3), logits.softmax(2)).flatten(1, 2)


class _Layers(NamedTuple):
    """The dense part of a ranker, rearranged so that users are fixed first."""

    first: Tensor  # [R,5D] all that is linear in x0: the deep part's first layer, z_1, and what the heads read of it
    offset: Tensor  # [R]
    sizes: tuple[int, int, int, int]  # of its parts: deep, z_1, U_L'diag(w) of each head, the heads' own
    crosses: list[tuple[Tensor, Tensor, Tensor]]  # U_l, b_l and what is read of x_l: V_(l+1), the heads after the last
    deep: list[tuple[Tensor, Tensor]]
    of_deep: Tensor  # [1+T,hidden]
    bias: Tensor  # [1+T,1]
    dtype: torch.dtype

    def of_users(self, person: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first layer of each of `person` [B,D] as a matrix over [c, a, a*c], [B,R,3D], and what it adds."""
        p, c, a, pc, ac = self.first.chunk(5, dim=1)
        of_candidate = c + pc * person.unsqueeze(1)
        others = torch.cat([a, ac], dim=1).expand(len(person), -1, -1)
        matrix = torch.cat([of_candidate, others], dim=2).to(self.dtype)
        return matrix, (person @ p.T + self.offset).unsqueeze(2).to(self.dtype)

    def logits(self, person: Tensor, c: Tensor, a: Tensor, first: Tensor, offset: Tensor) -> Tensor:
        """Return the logits of candidates c that found a, [B,D,K], for `person` [B,D]: [B,1+T,K]."""
        mixed = torch.cat([c, a, a * c], dim=1)
        h, z, folded, own = torch.baddbmm(offset, first, mixed).split(self.sizes, dim=1)
        out = own.float() + self.bias
        if self.crosses:
            p = person.to(c.dtype).unsqueeze(2)
            x0 = torch.cat([p.expand_as(c), mixed[:, : 2 * c.shape[1]], p * c, mixed[:, 2 * c.shape[1] :]], dim=1)
            x = x0
            for thick, bias, after in self.crosses:
                x = torch.addcmul(x, x0, torch.matmul(thick, z) + bias)
                z = torch.matmul(after, x)
            z, read = z.split([z.shape[1] - len(self.bias), len(self.bias)], dim=1)
            out = out + read.float()
        if folded.shape[1]:
            out = out + (folded.unflatten(1, (len(self.bias), -1)) * z.unsqueeze(1)).float().sum(2)
        h = h.relu_()
        for weight, bias in self.deep:
            h = torch.matmul(weight, h).add_(bias).relu_()
        return out + torch.matmul(self.of_deep, h.float())


def _arranged(model: Ranker, dtype: torch.dtype) -> _Layers:
    width = 5 * model.dim
    last, of_deep = model.head.weight[:, :width], model.head.weight[:, width:]
    made = [cross for cross in model.crosses if isinstance(cross, Cross)]
    crosses = [(cross.thin.weight, cross.thick.weight, cross.thick.bias) for cross in made]
    start, *deep = [layer for layer in model.deep if isinstance(layer, nn.Linear)]
    # A head reads w.x_L = (U_L'diag(w)x0).z_L + (w*b_L).x0 + w.x_(L-1): linear in x0, but for one inner product.
    thin, folded, own = last[:0], last[:0], last
    if crosses:
        _, thick, bias = crosses[-1]
        thin, folded = crosses[0][0], torch.cat([thick.T * w for w in last])
        own = last * bias + (last if len(crosses) == 1 else 0)
    first = torch.cat([start.weight, thin, folded, own])
    after = [thin for thin, _, _ in crosses[1:]]
    if after:
        after[-1] = torch.cat([after[-1], last])
    return _Layers(
        first=first,
        offset=nn.functional.pad(start.bias, (0, len(first) - len(start.bias))),
        sizes=(len(start.weight), len(thin), len(folded), len(own)),
        crosses=[
            (thick.to(dtype), bias.to(dtype).unsqueeze(1), then.to(dtype))
            for (_, thick, bias), then in zip(crosses[:-1], after, strict=True)
        ],
        deep=[(layer.weight.to(dtype), layer.bias.to(dtype).unsqueeze(1)) for layer in deep],
        of_deep=of_deep,
        bias=model.head.bias.unsqueeze(1),
        dtype=dtype,
    )
