"""TimeSformer with divided space-time attention as its paper writes it, on weights under their
published names; slow.
"""

import torch
from torch.nn.functional import gelu, layer_norm, linear


def norm(x, state, name):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def dense(x, state, name):
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attend(x, state, name, heads):
    """Self-attention over the rows of x (N, D), head by head."""
    q, k, v = dense(x, state, f"{name}.qkv").chunk(3, -1)
    size, out = x.shape[1] // heads, []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        out.append((q[:, part] @ k[:, part].T / size**0.5).softmax(-1) @ v[:, part])
    return dense(torch.cat(out, -1), state, f"{name}.proj")


def timesformer(state: dict, clip: torch.Tensor, heads: int) -> torch.Tensor:
    """Tokens after the last norm (1 + P * T, D), patch by patch and in it frame by frame, of a clip
    (T, C, H, W).
    """
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    size = weight.shape[-1]
    frames = []
    for frame in clip:
        patches = [
            (weight * frame[:, y : y + size, x : x + size]).sum((1, 2, 3)) + bias
            for y in range(0, frame.shape[1], size)
            for x in range(0, frame.shape[2], size)
        ]
        frames.append(torch.stack(patches) + state["pos_embed"][0, 1:])
    tokens = torch.stack(frames, 1) + state["time_embed"][0]  # (P, T, D)
    cls = state["cls_token"][0, 0] + state["pos_embed"][0, 0]
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for i in range(depth):
        at = f"blocks.{i}"
        moved = [
            attend(norm(p, state, f"{at}.temporal_norm1"), state, f"{at}.temporal_attn", heads)
            for p in tokens
        ]
        tokens = tokens + dense(torch.stack(moved), state, f"{at}.temporal_fc")
        found_cls, found = [], []
        for t in range(tokens.shape[1]):
            seen = attend(
                norm(torch.cat([cls[None], tokens[:, t]]), state, f"{at}.norm1"),
                state,
                f"{at}.attn",
                heads,
            )
            found_cls.append(seen[0])
            found.append(seen[1:])
        cls, tokens = cls + torch.stack(found_cls).mean(0), tokens + torch.stack(found, 1)
        cls = cls + dense(
            gelu(dense(norm(cls, state, f"{at}.norm2"), state, f"{at}.mlp.fc1")),
            state,
            f"{at}.mlp.fc2",
        )
        tokens = tokens + dense(
            gelu(dense(norm(tokens, state, f"{at}.norm2"), state, f"{at}.mlp.fc1")),
            state,
            f"{at}.mlp.fc2",
        )
    return norm(torch.cat([cls[None], tokens.flatten(0, 1)]), state, "norm")
