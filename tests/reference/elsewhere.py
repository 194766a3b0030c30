"""A GPU that is not there: tensors that compute on the CPU, say that they lie elsewhere, and refuse
to meet those that do not.

Within `pretended()` the device "privateuseone" is such a place. What code for one place gets away
with, an index made on the CPU for example, passes; what a GPU would refuse, raises.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

PLACE = torch.device("privateuseone:0")


class Far(torch.Tensor):
    """A tensor of the place."""

    def __deepcopy__(self, memo):
        with torch.no_grad():
            copy = self.detach().clone()
        copy = (
            torch.nn.Parameter(copy, self.requires_grad)
            if isinstance(self, torch.nn.Parameter)
            else copy
        )
        memo[id(self)] = copy
        return copy


def far(x: torch.Tensor) -> bool:
    return isinstance(x, Far)


def near_tensors(given) -> list[torch.Tensor]:
    return [x for x in tree_flatten(given)[0] if isinstance(x, torch.Tensor) and not far(x)]


class Pretended(TorchFunctionMode):
    """Every call of torch, looked at."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        leaves = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        some_far = any(map(far, leaves))
        if name == "__get__" and getattr(function, "__self__", None) is torch.Tensor.device:
            return PLACE if far(args[0]) else function(*args)
        if name == "__get__" and getattr(function, "__self__", None) in (
            torch.Tensor.is_cuda,
            torch.Tensor.is_cpu,
        ):
            return not far(args[0]) and function(*args)
        if name == "_has_compatible_shallow_copy_type":  # a module that moves gets new parameters
            return far(args[0]) == far(args[1])
        if name in ("numpy", "__array__") and far(args[0]):
            raise TypeError(
                "can't convert a tensor of another device to numpy; use Tensor.cpu() first"
            )
        if name in ("cpu", "to", "type_as"):
            return self.moved(function, name, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == PLACE.type:
            kwargs["device"] = "cpu"
            made = self.plain(function, args, kwargs)
            return made.as_subclass(Far)
        if name in ("__getitem__", "__setitem__", "index", "index_put_") and far(args[0]):
            # an index may lie on the CPU
            return self.result(self.plain(function, args, kwargs), True)
        if name in ("copy_", "set_") or not some_far:
            return function(*args, **kwargs)
        if bad := [x for x in near_tensors((args, kwargs)) if x.dim()]:
            raise RuntimeError(
                f"{resolve_name(function) or name}: expected all tensors on {PLACE}, found one of "
                f"shape {tuple(bad[0].shape)} on cpu"
            )
        return self.result(self.plain(function, args, kwargs), True)

    @staticmethod
    def plain(function, args, kwargs):
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    @staticmethod
    def result(out, is_far: bool):
        return tree_map(
            lambda x: (
                x.as_subclass(Far) if isinstance(x, torch.Tensor) and is_far and not far(x) else x
            ),
            out,
        )

    def moved(self, function, name: str, args, kwargs):
        x = args[0]
        rest = [*args[1:]]
        to_far = far(x)
        if name == "cpu":
            return (
                (self.plain(torch.Tensor.clone, (x,), {}).as_subclass(torch.Tensor))
                if to_far
                else x
            )
        for i, a in enumerate(rest):
            if isinstance(a, torch.Tensor):
                to_far = far(a)
            elif isinstance(a, torch.device | str):
                to_far, rest[i] = torch.device(a).type == PLACE.type, torch.device("cpu")
        if "device" in kwargs and kwargs["device"] is not None:
            to_far, kwargs["device"] = torch.device(kwargs["device"]).type == PLACE.type, "cpu"
        out = self.plain(function, (x, *rest), kwargs)
        if to_far == far(x):
            return out.as_subclass(type(x)) if to_far and not far(out) else out
        out = out.clone() if out is x else out
        return out.as_subclass(Far if to_far else torch.Tensor)


@contextmanager
def pretended():
    """The place exists, and `vlact.runtime.device` puts models there."""
    from vlact.runtime import device

    before, real = device.wanted(), torch.autocast

    @contextmanager
    def autocast(kind: str, *args, **kwargs):
        """As on the CPU, with attention as `vlact.training.loop.autocast` has it there."""
        with (
            real("cpu" if kind == PLACE.type else kind, *args, **kwargs),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield

    with (
        Pretended(),
        mock.patch.object(torch, "autocast", autocast),
        torch.serialization.safe_globals([Far]),
    ):
        device.choose(str(PLACE))
        try:
            yield PLACE
        finally:
            device.choose(before)


def where(_) -> tuple[str, str]:
    """What a process was told, and where it puts models."""
    from vlact.runtime import device

    return device.wanted(), str(device.chosen())


def own_gpu(meeting: str, count: int, gpus: int) -> tuple[str, int]:
    """Where a worker puts models on a machine of so many GPUs, and the worker's process; returns
    once `count` of them have come to the folder `meeting`.
    """
    import os
    import tempfile
    from pathlib import Path

    from reference.waiting import until

    from vlact.runtime import device

    fakes = {"is_available": lambda: True, "device_count": lambda: gpus}
    with (
        mock.patch.multiple(torch.cuda, **fakes),
        mock.patch.object(tempfile, "tempdir", meeting),
        mock.patch.object(device, "_claim", device._claim),  # held while all are here
    ):
        device.choose("auto", worker=True)
        found = str(device.chosen()), os.getpid()
        Path(meeting, f"{os.getpid()}.here").touch()
        until(lambda: len(list(Path(meeting).glob("*.here"))) >= count, "the other workers")
    device.choose("cpu")
    return found
