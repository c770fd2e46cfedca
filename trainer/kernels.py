"""The functions of `native/kernels.c` on tensors, compiled at the first use, where a compiler is.

fp32 and bf16 on the CPU, on as many threads as torch uses: their OpenMP is torch's own, so that
the two do not wait for each other. Whoever asks for `kernels()` and gets None computes the same
with torch. Knows nothing of autograd, layers and models.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.compiling import compiled_once
from trainer.packing import Segment

TYPES = (torch.float32, torch.bfloat16)

_NAMES = (
    *("tree", "tree_back", "norm", "norm_back", "gate", "gate_back", "turn", "logps"),
    "products",
)
_ROWS_EACH = 16
_LARGEST_PANEL = 1 << 20  # bytes
_SMALL = 1 << 14  # numbers, less than which one thread works through by itself


class _Segment(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_long) for name in ("start", "end", "ranges")],
        *[(name, ctypes.c_void_p) for name in ("before", "hidden")],
    ]


class _Tree(ctypes.Structure):
    _fields_ = [
        *[
            (name, ctypes.c_void_p)
            for name in ("q", "k", "v", "out", "sums", "d_out", "d_q", "d_kv", "room", "segments")
        ],
        *[
            (name, ctypes.c_long)
            for name in ("count", "tokens", "heads", "groups", "size", "room_each")
        ],
        ("by_place", ctypes.c_long * 3),
        ("by_head", ctypes.c_long * 3),
        ("scale", ctypes.c_double),
    ]


class _Rows(ctypes.Structure):
    _fields_ = [
        *[
            (name, ctypes.c_void_p)
            for name in ("x", "w", "d", "y", "z", "scales", "cos", "sin", "labels")
        ],
        *[(name, ctypes.c_long) for name in ("rows", "size", "heads", "by_place", "by_head")],
        ("first", ctypes.c_long),
        ("eps", ctypes.c_double),
        ("back", ctypes.c_int),
    ]


class _Factors(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("a", "b")],
        *[(name, ctypes.c_long) for name in ("a_row", "b_row", "b_column", "k")],
    ]


class _Products(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("parts", "bias", "c", "room")],
        *[(name, ctypes.c_long) for name in ("count", "m", "n", "room_each")],
    ]


class Plan:
    """A forest's segments as the kernels read them; made once for all layers."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.most = 1  # places seen at once, their own included
        self._kept: list[object] = []
        self._table = (_Segment * len(self.segments))()
        for entry, one in zip(self._table, self.segments, strict=True):
            places = [place for both in one.before for place in both]
            before = (ctypes.c_long * len(places))(*places)
            hidden = one.hidden.cpu().contiguous()
            self._kept += [before, hidden]
            entry.start, entry.end, entry.ranges = one.start, one.end, len(one.before)
            entry.before, entry.hidden = ctypes.addressof(before), hidden.data_ptr()
            seen = one.end - one.start + sum(end - start for start, end in one.before)
            self.most = max(self.most, seen)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._table)


class Kernels:
    """The library's functions; tensors are on the CPU, of one of `TYPES`, without gaps in a row."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._calls: dict[tuple[str, torch.dtype], Callable[..., None]] = {}
        self.quick_types = set[torch.dtype]()  # whose `products` are not torch's
        for dtype, suffix in zip(TYPES, ("f32", "bf16"), strict=True):
            for name in _NAMES:
                call = getattr(library, f"attune_{name}_{suffix}")
                call.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p]
                call.restype = None
                self._calls[name, dtype] = call
            if getattr(library, f"attune_quick_products_{suffix}")():
                self.quick_types.add(dtype)
        self._room = library.attune_tree_room
        self._room.argtypes, self._room.restype = [ctypes.c_long] * 3, ctypes.c_long
        self._panel = library.attune_panel
        self._panel.argtypes, self._panel.restype = [ctypes.c_long], ctypes.c_long
        self._fork = _fork()
        self._rooms = threading.local()

    def tree(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float
    ) -> tuple[Tensor, Tensor]:
        """softmax(q kᵀ · scale) v of each place over the places it sees.

        Args:
            query: (N, heads, D), with any strides but the last; key, value: (N, groups, D).

        Returns:
            What was made, (N, heads, D), and the log of each row's sum, (N, heads) fp32.
        """
        made = query.new_empty(query.shape)
        sums = torch.empty(query.shape[:2], dtype=torch.float32)
        work = _Tree(out=made.data_ptr(), sums=sums.data_ptr())
        self._attend("tree", work, (query, key, value), plan, scale, self._slots(query))
        return made, sums

    def tree_back(
        self,
        grad: Tensor,
        of: tuple[Tensor, Tensor, Tensor],
        sums: Tensor,
        plan: Plan,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of query, key and value by that of what `tree` made `of` them."""
        query, key, _ = of
        grad = grad.contiguous()
        d_query = query.new_empty(query.shape)
        slots = self._slots(query)
        d_both = torch.zeros(slots, 2, *key.shape, dtype=torch.float32)
        work = _Tree(
            sums=sums.data_ptr(),
            d_out=grad.data_ptr(),
            d_q=d_query.data_ptr(),
            d_kv=d_both.data_ptr(),
        )
        self._attend("tree_back", work, of, plan, scale, slots)
        whole = d_both[0] if slots == 1 else d_both.sum(0)
        d_key, d_value = whole.to(key.dtype)
        return d_query, d_key, d_value

    def products(
        self,
        parts: Sequence[tuple[Tensor, Tensor]],
        bias: Tensor | None = None,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """bias + a b + a' b' + … of (M, K) and (K, N), each K another, rounded once.

        Torch makes them where it is quicker, and what the kernel cannot read; it rounds each.

        Args:
            parts: without gaps in the rows of each a, and in the rows or in the columns of each b.
            bias: (N,).
            out: (M, N), where they are to go.
        """
        parts = [(a, b) for a, b in parts if a.shape[1]] or parts[:1]
        if self.makes(parts):
            return self.quick_products(parts, bias, out=out)
        (a, b), *others = parts
        made = torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)
        for a, b in others:
            torch.addmm(made, a, b, out=made)
        return made

    def makes(self, parts: Sequence[tuple[Tensor, Tensor]]) -> bool:
        """Whether the kernel is quicker than torch, and can read these parts.

        Each thread puts panels together for rows of its own: there have to be some, and a panel
        has to stay in the cache.
        """
        a, b = parts[0]
        many = len(a) >= _ROWS_EACH * self._slots(a) and b.shape[1] > 0
        panel = self._panel(sum(a.shape[1] for a, _ in parts)) * a.element_size()
        return (
            a.dtype in self.quick_types
            and many
            and panel <= _LARGEST_PANEL
            and all(one.dtype == a.dtype for part in parts for one in part)
            and all(map(_in_words, parts))
        )

    def quick_products(
        self,
        parts: Sequence[tuple[Tensor, Tensor]],
        bias: Tensor | None = None,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """`products` by the kernel."""
        shape = len(parts[0][0]), parts[0][1].shape[1]
        made = parts[0][0].new_empty(shape) if out is None else out
        table = (_Factors * len(parts))()
        for entry, (a, b) in zip(table, parts, strict=True):
            entry.a, entry.a_row, entry.k = a.data_ptr(), a.stride(0), a.shape[1]
            entry.b, entry.b_row, entry.b_column = b.data_ptr(), *b.stride()
        slots = self._slots(parts[0][0])
        work = _Products(parts=ctypes.addressof(table), c=made.data_ptr(), count=len(parts))
        work.bias = None if bias is None else bias.data_ptr()
        work.m, work.n = made.shape
        work.room_each = self._panel(sum(a.shape[1] for a, _ in parts))
        work.room = self._room_of(slots * work.room_each).data_ptr()
        self._calls["products", made.dtype](self._fork, slots, ctypes.addressof(work))
        return made

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x / rms(x) · weight as `weight`'s type, and 1 / rms(x) of each row; x is fp32."""
        made = torch.empty(x.shape, dtype=weight.dtype)
        scales = torch.empty(x.shape[:-1], dtype=torch.float32)
        work = _Rows(x=x.data_ptr(), w=weight.data_ptr(), y=made.data_ptr(), eps=eps)
        work.scales = scales.data_ptr()
        self._run("norm", work, x, weight.dtype)
        return made, scales

    def norm_back(self, grad: Tensor, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        """The gradient of x, fp32, by that of `norm`'s result."""
        made = torch.empty_like(x)
        work = _Rows(x=x.data_ptr(), w=weight.data_ptr(), d=grad.data_ptr(), z=made.data_ptr())
        work.scales = scales.data_ptr()
        self._run("norm_back", work, x, weight.dtype)
        return made

    def gate(self, x: Tensor, by: Tensor) -> Tensor:
        """silu(x) · by."""
        made = torch.empty_like(x)
        self._run("gate", _Rows(x=x.data_ptr(), w=by.data_ptr(), y=made.data_ptr()), x, x.dtype)
        return made

    def gate_back(self, grad: Tensor, x: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both by that of `gate`'s result."""
        made, other = torch.empty_like(x), torch.empty_like(by)
        work = _Rows(x=x.data_ptr(), w=by.data_ptr(), d=grad.data_ptr())
        work.y, work.z = made.data_ptr(), other.data_ptr()
        self._run("gate_back", work, x, x.dtype)
        return made, other

    def turn(self, heads: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> Tensor:
        """Rotary embedding of (N, heads, D), any strides but the last, by fp32 cos and sin (N, D).

        Args:
            back: instead, from the gradients of what was turned to those of `heads`.
        """
        made = heads.new_empty(heads.shape)
        work = _Rows(x=heads.data_ptr(), y=made.data_ptr(), cos=cos.data_ptr(), sin=sin.data_ptr())
        work.heads, work.back = heads.shape[1], int(back)
        work.by_place, work.by_head = heads.stride()[:2]
        self._run("turn", work, heads, heads.dtype)
        return made

    def running(self, labels: Tensor) -> RunningLogps:
        """Log-probs of `labels` (N,), to be fed with logits."""
        return RunningLogps(self, labels.contiguous())

    def take_logits(self, work: _Rows, logits: Tensor) -> None:
        """See `RunningLogps.take`."""
        self._run("logps", work, logits, logits.dtype)

    def _attend(  # noqa: PLR0917
        self,
        name: str,
        work: _Tree,
        heads: tuple[Tensor, Tensor, Tensor],
        plan: Plan,
        scale: float,
        slots: int,
    ) -> None:
        query, key, _ = heads
        work.q, work.k, work.v = (one.data_ptr() for one in heads)
        work.by_place[:] = [one.stride(0) for one in heads]
        work.by_head[:] = [one.stride(1) for one in heads]
        work.tokens, work.heads, work.size = query.shape
        work.groups, work.scale = key.shape[1], scale
        work.segments, work.count = plan.address, len(plan.segments)
        work.room_each = self._room(plan.most, work.size, work.heads // work.groups)
        room = self._room_of(slots * work.room_each)
        work.room = room.data_ptr()
        self._calls[name, query.dtype](self._fork, slots, ctypes.addressof(work))

    def _room_of(self, numbers: int) -> Tensor:
        """Where a thread's calls put together what they work on; fresh memory costs time."""
        room: Tensor | None = getattr(self._rooms, "room", None)
        if room is None or len(room) < numbers:
            room = self._rooms.room = torch.empty(numbers, dtype=torch.float32)
        return room

    def _run(self, name: str, work: _Rows, over: Tensor, dtype: torch.dtype) -> None:
        work.size = over.shape[-1]
        work.rows = over.shape[0] if name == "turn" else over.numel() // work.size
        self._calls[name, dtype](self._fork, self._slots(over), ctypes.addressof(work))

    def _slots(self, over: Tensor) -> int:
        many = self._fork is not None and over.numel() >= _SMALL
        return torch.get_num_threads() if many else 1


def _in_words(part: tuple[Tensor, Tensor]) -> bool:
    """Whether a's rows can be read two numbers at a time, and one of b's strides is 1."""
    a, b = part
    even = a.element_size() > 2 or not (a.shape[1] % 2 or a.stride(0) % 2)
    return even and a.stride(1) == 1 and 1 in b.stride()


class RunningLogps:
    """log softmax(logits)[label] of N rows, of which some words after the other become known.

    Attributes:
        sums: (N,) fp32, of the exponentials so far, each over that of the row's largest logit.
    """

    def __init__(self, of: Kernels, labels: Tensor) -> None:
        self._of = of
        self._labels = labels
        lowest = torch.full((3, len(labels)), -torch.inf, dtype=torch.float32)
        self._tops: Tensor = lowest[0]
        self._fallen: Tensor = lowest[1]
        self._of_labels: Tensor = lowest[2]
        self.sums: Tensor = torch.zeros(len(labels), dtype=torch.float32)

    def take(self, logits: Tensor, first: int, *, keep: bool) -> Tensor:
        """Take in the logits (N, some) of the words from `first` on.

        Args:
            keep: whether `logits` become exponentials, each over that of the row's largest so far.

        Returns:
            (N,) by what all that was computed before is to be multiplied; overwritten next time.
        """
        work = _Rows(y=logits.data_ptr(), z=self.sums.data_ptr(), x=self._tops.data_ptr())
        work.w, work.scales = self._of_labels.data_ptr(), self._fallen.data_ptr()
        work.labels, work.first, work.back = self._labels.data_ptr(), first, int(keep)
        self._of.take_logits(work, logits)
        return self._fallen

    def logps(self) -> Tensor:
        """(N,) fp32, once all words have been taken in."""
        return self._of_labels - self._tops - self.sums.log()


def _fork() -> Any:
    """GOMP_parallel of the OpenMP that torch works with; None if it has another."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None


kernels = compiled_once(Path(__file__).parent / "native" / "kernels.c", Kernels)
