"""Several processes that train one model together, as `torchrun` starts them.

```
torchrun --nproc-per-node 2 --no-python -- tinprep train DATA --run RUN
```

Each rank computes its part of every batch, the gradients are added up, and every rank makes the
same step. Only the first one writes the run and tells of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from schemas import interrupts
from schemas.errors import EnvironmentFault, UsageError

T = TypeVar("T")

# How long a process waits to be ended by torchrun after another one has failed.
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default.

    Attributes:
        rank: which one.
        world: how many.
        local_rank: which one of this machine, and so its GPU.
        local_world: how many of this machine, which share its cores.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def add(self, values: Tensor) -> None:
        """Replace values by their sum over all ranks, the same to the last bit on each."""
        if self.world > 1:
            with _together():
                dist.all_reduce(values)

    def gather(self, values: Tensor) -> Tensor:
        """Stack the values of all ranks, which have one shape."""
        if self.world == 1:
            return values.unsqueeze(0)
        found = [torch.empty_like(values) for _ in range(self.world)]
        with _together():
            dist.all_gather(found, values)
        return torch.stack(found)

    def share(self, value: T) -> T:
        """What the first rank gives, on every rank."""
        held = [value]
        if self.world > 1:
            with _together():
                dist.broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Go on when every rank has come here."""
        self.add(torch.zeros(1))


ALONE = Ranks()


def device_of(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device that a process computes on.

    Args:
        name: `cpu`, `cuda`, or `auto` for CUDA where there is one.

    Raises:
        UsageError: there is no such device.
    """
    usable = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if name == "auto":
        name = usable[-1]
    if name not in usable:
        raise UsageError(
            "This device cannot be used.",
            where="--device",
            expected=f"one of auto, {', '.join(usable)}",
            got=name,
        )
    if name == "cuda" and ranks.world > 1:
        return torch.device(name, ranks.local_rank % torch.cuda.device_count())
    return torch.device(name)


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; alone where it started none or one.

    Of an error that several ranks meet, or that ends the others, one message is seen: the rank that
    fails first raises it, the others leave quietly with exit code 1.

    Raises:
        SystemExit: another rank has failed.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    ranks = Ranks(
        int(os.environ["RANK"]),
        world,
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ.get("LOCAL_WORLD_SIZE", world)),
    )
    if dist.is_initialized():
        yield ranks
        return
    store, rank, world = next(rendezvous("env://"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=world
    )
    with interrupts.held():
        try:
            yield ranks
            ranks.wait()
        except BaseException:
            if not _failed_first(store, rank):
                raise SystemExit(1) from None
            raise
    dist.destroy_process_group()


def _failed_first(store: Store, rank: int) -> bool:
    """Whether no other rank failed before; if one did, give torchrun time to see which."""
    try:
        found: bytes = store.compare_set("tinprep/failed", "", str(rank))
        first = found == str(rank).encode()
        until = time.monotonic() + _GRACE_SECONDS
        # A signal comes to all of them: the others have no more to say.
        while not (first or interrupts.came()) and time.monotonic() < until:
            time.sleep(0.05)
    except RuntimeError:  # whoever kept the store is gone
        return True
    except KeyboardInterrupt:  # torchrun has seen it
        return False
    return first


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise EnvironmentFault(
            "Another process of the training has ended.",
            got=str(error).partition("\n")[0],
            do="see its own message; start all of them again with `--resume`",
        ) from error
