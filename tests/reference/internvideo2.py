"""InternVideo2's video tower written out, on weights under their names; slow."""

import math

import torch
from torch.nn.functional import layer_norm, linear

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def rms(x, weight):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attend(q, k, v, heads):
    out, width = [], q.shape[-1] // heads
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        out.append((q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(-1) @ v[:, part])
    return torch.cat(out, -1)


def internvideo2(state: dict, clip: torch.Tensor, heads: int, pool_heads: int) -> torch.Tensor:
    """The feature of a clip uint8 (T, H, W, 3): patches one by one, attention head by head."""
    weight, bias, pixels = (
        state["patch_embed.proj.weight"][:, :, 0],
        state["patch_embed.proj.bias"],
        (clip / 255 - MEAN) / STD,
    )
    size, tokens = weight.shape[-1], [state["cls_token"][0, 0]]
    for frame in pixels.permute(0, 3, 1, 2):
        for y in range(0, frame.shape[1], size):
            for x in range(0, frame.shape[2], size):
                tokens.append((weight * frame[:, y : y + size, x : x + size]).sum((1, 2, 3)) + bias)
    x = torch.stack(tokens) + state["pos_embed"][0]
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))):
        own = {
            k.removeprefix(f"blocks.{i}."): v
            for k, v in state.items()
            if k.startswith(f"blocks.{i}.")
        }
        q, k, v = linear(rms(x, own["norm1.weight"]), own["attn.qkv.weight"]).chunk(3, -1)
        seen = attend(
            rms(q, own["attn.q_norm.weight"]), rms(k, own["attn.k_norm.weight"]), v, heads
        )
        x = x + own["ls1.gamma"] * linear(seen, own["attn.proj.weight"], own["attn.proj.bias"])
        inner = gelu(
            linear(rms(x, own["norm2.weight"]), own["mlp.fc1.weight"], own["mlp.fc1.bias"])
        )
        x = x + own["ls2.gamma"] * linear(inner, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    own = {
        k.removeprefix("clip_projector."): v
        for k, v in state.items()
        if k.startswith("clip_projector.")
    }

    def side(name, y):
        y = layer_norm(
            y, y.shape[-1:], own[f"norm1_{name}.weight"], own[f"norm1_{name}.bias"], 1e-5
        )
        return linear(y, own[f"cross_attn.{name}.weight"], own[f"cross_attn.{name}_bias"])

    seen = attend(side("q", x.mean(0, keepdim=True)), side("k", x), side("v", x), pool_heads)
    return linear(seen, own["cross_attn.proj.weight"], own["cross_attn.proj.bias"])[0]
