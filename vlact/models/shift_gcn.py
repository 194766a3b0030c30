"""Shift-GCN (Cheng et al., CVPR 2020): graph convolutions that move channels between joints and
along time, then mix them point by point. Here to run the authors' NTU weights, frozen.

Shapes: joints (B, 3, T, 25, P) of P people; inside (B P, C, T, 25). Non-local shifts between joints
are a permutation kept in the weights; shifts along time are a learnt number of frames a channel,
between two frames a linear mix, and zero beyond the ends.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vlact.runtime.damage import DAMAGED

JOINTS = 25
PEOPLE = 2
CLASSES = 60
WIDTHS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)
PADDED = 300  # frames that NTU's clips are repeated to


class TemporalShift(nn.Module):
    """Each channel moved along time by its own `ypos` frames (`xpos`, across joints, stays 0)."""

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.xpos, self.ypos = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) to (B, C, T // stride, V)."""
        steps = x.shape[2]
        low = self.ypos.floor()
        share = (self.ypos - low)[None, :, None, None]
        at = torch.arange(0, steps // self.stride * self.stride, self.stride, device=x.device)
        first = at[None] + low.long()[:, None]  # (C, T')

        def taken(frame: Tensor) -> Tensor:
            inside = ((frame >= 0) & (frame < steps))[None, :, :, None]
            index = frame.clamp(0, steps - 1)[None, :, :, None].expand(len(x), -1, -1, x.shape[3])
            return x.gather(2, index) * inside

        return taken(first) * (1 - share) + taken(first + 1) * share


class GraphShift(nn.Module):
    """Channels moved between joints, mixed, moved back."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.Linear_weight = nn.Parameter(torch.zeros(channels, out))
        self.Linear_bias = nn.Parameter(torch.zeros(1, 1, out))
        self.Feature_Mask = nn.Parameter(torch.zeros(1, JOINTS, channels))
        for name, width in (("shift_in", channels), ("shift_out", out)):
            index = torch.zeros(JOINTS * width, dtype=torch.long)
            setattr(self, name, nn.Parameter(index, requires_grad=False))
        self.bn = nn.BatchNorm1d(JOINTS * out)
        self.down = (
            nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))
            if channels != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, steps, joints = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(batch * steps, joints * channels)
        moved = flat[:, self.shift_in].view(-1, joints, channels)
        mixed = (moved * (self.Feature_Mask.tanh() + 1)) @ self.Linear_weight + self.Linear_bias
        back = self.bn(mixed.flatten(1)[:, self.shift_out])
        out = back.view(batch, steps, joints, -1).permute(0, 3, 1, 2)
        return relu(out + self.down(x))


class TimeShift(nn.Module):
    """Channels moved along time, mixed, moved again."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.bn, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.shift_in = TemporalShift(channels)
        self.shift_out = TemporalShift(channels, stride)
        self.temporal_linear = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.shift_out(relu(self.temporal_linear(self.shift_in(self.bn(x))))))


class Shortcut(nn.Module):
    """Of a block that changes width or rate."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Block(nn.Module):
    """Both kinds of shift and a shortcut; the first block has none."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.gcn1, self.tcn1 = GraphShift(channels, out), TimeShift(out, stride)
        self.first = channels == 3
        same = channels == out and stride == 1
        self.residual = None if self.first or same else Shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        if not self.first:
            y = y + (x if self.residual is None else self.residual(x)[:, :, : y.shape[2]])
        return relu(y)


class ShiftGCN(nn.Module):
    """Joints to features and to NTU's sixty classes."""

    def __init__(self):
        super().__init__()
        self.data_bn = nn.BatchNorm1d(PEOPLE * JOINTS * 3)
        before = (3, *WIDTHS[:-1])
        for i, shape in enumerate(zip(before, WIDTHS, STRIDES, strict=True), 1):
            setattr(self, f"l{i}", Block(*shape))
        self.fc = nn.Linear(WIDTHS[-1], CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, T, 25, P) to (B, P, 256), the mean over joints and time of each person.

        With one person only the first half of the input's norm is used.
        """
        batch, _, steps, joints, people = x.shape
        flat = x.permute(0, 4, 3, 1, 2).reshape(batch, people * joints * 3, steps)
        n = self.data_bn
        used = slice(people * joints * 3)
        flat = nn.functional.batch_norm(
            flat, n.running_mean[used], n.running_var[used], n.weight[used], n.bias[used], eps=n.eps
        )
        x = flat.view(batch, people, joints, 3, steps).permute(0, 1, 3, 4, 2).flatten(0, 1)
        for i in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"l{i}")(x)
        return x.mean((2, 3)).view(batch, people, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 60)."""
        return self.fc(self.features(x).mean(1))

    @classmethod
    def load(cls, path: str | Path) -> "ShiftGCN":
        """From the authors' file, in evaluation mode, frozen.

        Raises:
            ValueError: Another file; names what does not fit.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self = cls()
            self.load_state_dict(state)
        except (OSError, *DAMAGED) as error:
            raise ValueError(f"{path}: expected Shift-GCN's NTU weights; {error}") from None
        return self.eval().requires_grad_(False)


def upright(joints: Tensor) -> Tensor:
    """One person as the authors prepare NTU.

    In every frame the spine's middle lies at the origin. The whole is turned so that in the first
    frame the bone from hips to spine points along z, that from the left to the right shoulder along
    x.

    Args:
        joints: (T, 25, 3), in NTU's order.

    Returns:
        The same shape.
    """
    x = joints - joints[:, 1:2]
    for start, end, axis in ((0, 1, 2), (4, 8, 0)):
        x = x @ turn(x[0, end] - x[0, start], torch.eye(3, dtype=x.dtype)[axis]).T
    return x


def turn(a: Tensor, b: Tensor) -> Tensor:
    """The smallest rotation (3, 3) that brings direction a to b; none for a zero vector."""
    a, b = nn.functional.normalize(a, dim=0), nn.functional.normalize(b, dim=0)
    v, c = torch.linalg.cross(a, b), a @ b
    k = v.new_zeros(3, 3)
    k[0, 1], k[0, 2], k[1, 0] = -v[2], v[1], v[2]
    k[1, 2], k[2, 0], k[2, 1] = -v[0], -v[1], v[0]
    return torch.eye(3, dtype=a.dtype) + k + k @ k / (1 + c).clamp(min=1e-6)
