"""One process or many, behind one value: `World`; nothing else reads torchrun's variables or calls a collective.

`torchrec` is imported here and in `models/tables.py` and its neighbours only, and inside functions, so that data stages
run without it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

from recdistill import errors
from recdistill.errors import RecdistillError, StageError
from recdistill.pulse import await_key, beating

T = TypeVar("T")
LONG = timedelta(days=7)  # how long ranks wait for rank 0's stages while it lives
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT, LARGEST_KEPT = 2**30, 2**25  # bytes kept at the heap's end, and of one block: the most that glibc takes
HUNG = timedelta(minutes=10)  # a collective that takes longer has lost a peer
SOON = timedelta(seconds=2)  # how often a rank that joins looks whether a newer attempt has begun
ASK = timedelta(minutes=1)  # how often a rank that waits asks whether rank 0 is still there


@dataclass(frozen=True, slots=True)
class World:
    """This process among its peers, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    store: Any = None  # the key-value store all ranks share; None in a world of one
    turn: Iterator[int] = field(default_factory=count)
    local: int | None = None  # ranks of one host; all of them if None

    def share(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and return its JSON-able result on every rank; its error is raised on every rank."""
        if self.size == 1:
            return work()
        key = f"share/{next(self.turn)}"
        if self.rank == 0:
            try:
                value = work()
            except BaseException as cause:
                self.store.set(key, json.dumps({"error": type(cause).__name__, "text": str(cause)}))
                raise
            self.store.set(key, json.dumps({"value": value}))
            return value
        self._await(key)
        answer = json.loads(self.store.get(key))
        if "error" in answer:
            kind = getattr(errors, answer["error"], StageError)
            error = (kind if issubclass(kind, RecdistillError) else StageError)(answer["text"])
            error.shared = True
            raise error
        return answer["value"]

    def share_local(self, work: Callable[[], T]) -> T | None:
        """Run `work` on rank 0 for a result that stays there; its error is raised on every rank."""
        kept: list[T] = []
        self.share(lambda: kept.append(work()))
        return kept[0] if kept else None

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON-able `value` of every rank, in their order, on every rank; collective."""
        if self.size == 1:
            return [value]
        turn = next(self.turn)
        keys = [f"gather/{turn}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], json.dumps(value))
        self.store.wait(keys, HUNG)
        return [json.loads(self.store.get(key)) for key in keys]

    def _await(self, key: str) -> None:
        """Wait for `key`, which rank 0 sets, for as long as it lives."""
        with _gone(self.rank):
            came = await_key(self.store, key, silence=HUNG, ask=min(ASK, HUNG / 4), long=LONG)
        if not came:
            what = f"rank 0 has said nothing for {HUNG.total_seconds():g} s: it is stopped, or its machine is gone"
            fix = "end what is left of the run, see why it stopped, and run the same command again"
            raise StageError(what, where=f"rank {self.rank}", fix=fix)

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def slice(self, rows: int) -> slice:
        """Return this rank's rows of a global batch of `rows`, which the world's size must divide."""
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def processes() -> int:
    """Return how many processes work together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def world(*, device: str = "auto", threads: int | None = None) -> Iterator[World]:
    """Join the processes that torchrun started, or make a world of one; leave it when the block ends.

    What torchrun tells its processes (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT) other
    launchers may tell too. An engine that has joined them already, such as Ray Train, is left to part them. `threads`
    is how many CPU threads torch uses in this process; None leaves it alone.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    _keep_memory()
    if threads:
        import torch

        torch.set_num_threads(threads)
    given, local = _joined(), int(os.environ.get("LOCAL_RANK", "0"))
    try:
        if size == 1:
            yield World(device=_device(device, local))
        else:
            with _gone(rank):
                joined = _join(rank, size, _device(device, local), given=given)
            with beating(joined.store) if rank == 0 else nullcontext():
                yield joined
                joined.barrier()
    finally:
        if not given:
            _leave()


@contextmanager
def _gone(rank: int) -> Iterator[None]:
    """Raise a lost connection as a StageError that says what that means, of which torch says where in its own code."""
    import torch.distributed as dist

    try:
        yield
    except dist.DistError as cause:
        what = f"rank 0, or whoever keeps the ranks' store, is gone: {str(cause).splitlines()[0]}"
        fix = "see why it ended, and run the same command again: it goes on from what is done"
        raise StageError(what, where=f"rank {rank}", fix=fix) from cause


def _join(rank: int, size: int, place: str, *, given: bool) -> World:
    import torch.distributed as dist

    # The store is torchrun's, or the engine's; where there is neither, rank 0 keeps it.
    keeps = rank == 0 and not given and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    tcp = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_master=keeps)
    tcp = dist.PrefixStore("recdistill", tcp)
    store = dist.PrefixStore(_attempt(tcp, rank, size), tcp)
    if not given:
        dist.init_process_group(backend(place), store=store, rank=rank, world_size=size, timeout=HUNG)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    return World(rank=rank, size=size, device=place, store=dist.PrefixStore("share", store), local=local)


def _attempt(store: Any, rank: int, size: int) -> str:
    """Return the name of this attempt to run together, on which all ranks agree.

    A restarted one must not read the addresses that its predecessor left in the store. How often each agent has
    restarted its processes does not tell: an agent whose neighbour fails restarts its own without counting it. So rank
    0 calls, and goes on with those that have answered, each by a name that no other process has.
    """
    import torch.distributed as dist

    if rank == 0:
        name = f"attempt/{store.add('attempts', 1)}"
        store.set("call", name)
        answers = [f"{name}/answer/{other}" for other in range(1, size)]
        store.wait(answers, HUNG)
        store.set(f"{name}/go", json.dumps([store.get(answer).decode() for answer in answers]))
        return name
    me, end = uuid4().hex, time.monotonic() + HUNG.total_seconds()
    while time.monotonic() < end:
        with suppress(dist.DistStoreError):  # not yet
            store.wait(["call"], SOON)
            name = store.get("call").decode()
            store.set(f"{name}/answer/{rank}", me)
            store.wait([f"{name}/go"], SOON)
            if me in json.loads(store.get(f"{name}/go")):
                return name
            time.sleep(0.1)  # that call was of an attempt before this one
    raise StageError("rank 0 has not called", where=f"rank {rank}", fix="see why it ended, and run the command again")


def _keep_memory() -> None:
    """Have the C library keep what is freed, where it can be told so.

    A training step asks for the same few megabytes again and again; given back to the system each time, they cost more
    in page faults than in arithmetic.
    """
    with suppress(AttributeError, OSError, TypeError):  # no glibc, no such function
        adjust = ctypes.CDLL(None).mallopt
        adjust(TRIM_THRESHOLD, KEPT)
        adjust(MMAP_THRESHOLD, LARGEST_KEPT)


def backend(device: str) -> str:
    """Return the process group's backend: losses are summed on the CPU whatever the tables live on."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


def _device(wanted: str, local_rank: int) -> str:
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        return f"cuda:{local_rank}"
    if wanted == "cuda":
        raise StageError("exec.device is cuda, but torch sees no GPU", fix="set exec.device: auto, or run doctor")
    return "cpu"


def _joined() -> bool:
    if "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def _leave() -> None:
    if _joined():
        import torch.distributed as dist

        dist.destroy_process_group()
