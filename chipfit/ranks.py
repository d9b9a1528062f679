# SPDX-License-Identifier: Apache-2.0
"""``Ranks``: the processes that ``torchrun`` started, which share one piece of work at a time.

The first process leads: it does everything that there is to do, and the others wait
(:func:`follow`) until it calls them to a piece of work that all do in step. They print and write
nothing, and end with it. Nothing of this happens, or costs anything, where there is one process.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import cloudpickle

from chipfit.errors import BadInput, ChipfitError, LostProcess

if TYPE_CHECKING:
    from torch import Tensor

#: How long a process waits for another in the middle of shared work. One that died is noticed at
#: once, by its closed connection.
PATIENCE = timedelta(days=1)
#: Seconds between two looks for a call of the first process.
_PAUSE_S = 0.1


class Ranks:
    """The processes of one ``torchrun``, as one of them sees them.

    Args:
        rank: Of this process; 0 leads.
        size: Number of processes.
        store: Key-value store that all of them reach.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size, self._store = rank, size, store
        #: Whether all processes do the same at the moment; what one does alone is not told.
        self.in_step = False
        #: Whether each process computes a share of a batch at the moment.
        self.sharing = False
        self._calls = 0

    @contextmanager
    def together(self, function: Callable[..., Any], *arguments: Any) -> Iterator[None]:
        """Have all other processes run ``function(*arguments)`` beside the block.

        Raises:
            ChipfitError: A process cannot join.
        """
        self._store.set(self._key(), "begin")
        with self._group():
            self.told(lambda: (function, arguments))
            self._all_ready("")
            yield

    def serve(self) -> int:
        """Take part in what the first process calls to until it ends; return the exit code."""
        from torch.distributed import DistError

        while True:
            try:
                while not self._store.check([self._key()]):
                    time.sleep(_PAUSE_S)
                if self._store.get(self._key()) == b"end":
                    return 0
                with self._group():
                    try:
                        function, arguments = self.told(None)
                    except (ChipfitError, ImportError, AttributeError) as error:
                        if not isinstance(error, LostProcess):
                            self._all_ready(f"process {self.rank} cannot join: {error}")
                        raise
                    self._all_ready("")
                    function(*arguments)
            except ChipfitError:
                continue  # it came to all processes, or to the first one, which tells
            except DistError:
                return 0  # the store went with the first process

    def end(self) -> None:
        """Let the other processes go."""
        with suppress(RuntimeError):
            self._store.set(self._key(), "end")

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over processes of tensors, each contiguous and of its own shape.

        Raises:
            LostProcess: Another process is gone.
        """
        import torch

        found: list[Tensor] = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            own = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            flat = torch.cat([tensors[i].detach().reshape(-1) for i in own])
            with _noticing_loss():
                torch.distributed.all_reduce(flat)
            parts = flat.split([tensors[i].numel() for i in own])
            for i, part in zip(own, parts, strict=True):
                found[i] = part.view(tensors[i].shape)
        return found

    def told(self, compute: Callable[[], Any] | None) -> Any:
        """Return in every process what ``compute`` gives in the first one.

        Args:
            compute: In the first process; ``None`` in others.

        Raises:
            LostProcess: Another process is gone.
        """
        import torch

        with self.alone():
            value = None if compute is None else compute()
        data = b"" if compute is None else cloudpickle.dumps(value)
        size = torch.tensor(len(data))
        with _noticing_loss():
            torch.distributed.broadcast(size, 0)
        content = torch.empty(int(size), dtype=torch.uint8)
        if compute is not None:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with _noticing_loss():
            torch.distributed.broadcast(content, 0)
        return cloudpickle.loads(content.numpy().tobytes()) if compute is None else value

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let this process do meanwhile what the others do not."""
        before, self.in_step = self.in_step, False
        try:
            yield
        finally:
            self.in_step = before

    def _key(self) -> str:
        return f"chipfit/call/{self._calls}"

    def _all_ready(self, problem: str) -> None:
        from torch import distributed

        found: list[Any] = [None] * self.size
        with _noticing_loss():
            distributed.all_gather_object(found, problem)
        if any(found):
            raise ChipfitError("; ".join(filter(None, found)))

    @contextmanager
    def _group(self) -> Iterator[None]:
        """Connect all processes meanwhile."""
        from torch import distributed

        store = distributed.PrefixStore(f"chipfit/group/{self._calls}", self._store)
        self._calls += 1
        with _noticing_loss():
            distributed.init_process_group(
                "gloo", store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE
            )
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False
            distributed.destroy_process_group()


@contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # gloo names its source file in brackets, and adds advice.
        reason = str(error).split("] ", 1)[-1].split(". ")[0]
        raise LostProcess(
            f"another process of this torchrun was lost: {reason}",
            "nothing is lost: the same command continues where it stopped",
        ) from error


_ranks: Ranks | None = None


def current() -> Ranks | None:
    """Return the processes that this one belongs to; ``None`` where it is the only one.

    Raises:
        BadInput: The program uses ``torch.distributed`` for something of its own.
    """
    global _ranks
    if _ranks is None and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        from torch import distributed

        if distributed.is_initialized():
            raise BadInput(
                "torch.distributed is in use by this program already",
                "let chipfit open the process group, or run it in one process",
            )
        store, rank, size = next(distributed.rendezvous("env://", timeout=PATIENCE))
        _ranks = Ranks(rank, size, store)
        if rank == 0:
            atexit.register(_ranks.end)
    return _ranks


def follow() -> None:
    """Return at once in the first process; in others, take part in its work and end with it.

    Raises:
        SystemExit: In all processes but the first, once that one has ended.
    """
    ranks = current()
    if ranks is not None and ranks.rank > 0:
        _leave(ranks)


def _leave(ranks: Ranks) -> NoReturn:
    try:
        sys.exit(ranks.serve())
    except KeyboardInterrupt:
        sys.exit(130)
