"""A fine-tuned VideoMAE as its paper writes it, on weights under their official names; slow."""

import math

import torch
from torch.nn.functional import gelu, layer_norm, linear


def norm(x, state, name):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def dense(x, state, name):
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def videomae(state: dict, clip: torch.Tensor, heads: int) -> torch.Tensor:
    """Logits of a clip (T, 3, H, W): cubes one by one, sine and cosine positions, attention head by
    head.
    """
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    dim, _, depth, size, _ = weight.shape
    cubes = []
    for t in range(0, clip.shape[0], depth):
        for y in range(0, clip.shape[2], size):
            for x in range(0, clip.shape[3], size):
                cube = clip[t : t + depth, :, y : y + size, x : x + size].transpose(0, 1)
                cubes.append((weight * cube).sum((1, 2, 3, 4)) + bias)
    for i, cube in enumerate(cubes):
        angle = [i / 10000 ** (2 * (j // 2) / dim) for j in range(dim)]
        cubes[i] = cube + torch.tensor(
            [math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(angle)]
        )
    x = torch.stack(cubes)
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))):
        at, y = f"blocks.{i}", norm(x, state, f"blocks.{i}.norm1")
        q, k, v = linear(y, state[f"{at}.attn.qkv.weight"]).chunk(3, -1)
        q, v = q + state[f"{at}.attn.q_bias"], v + state[f"{at}.attn.v_bias"]
        found = []
        for h in range(heads):
            part = slice(h * dim // heads, (h + 1) * dim // heads)
            found.append(
                (q[:, part] @ k[:, part].T / math.sqrt(dim / heads)).softmax(-1) @ v[:, part]
            )
        x = x + dense(torch.cat(found, -1), state, f"{at}.attn.proj")
        x = x + dense(
            gelu(dense(norm(x, state, f"{at}.norm2"), state, f"{at}.mlp.fc1")),
            state,
            f"{at}.mlp.fc2",
        )
    return dense(norm(x.mean(0), state, "fc_norm"), state, "head")
