"""ActionVLM's language branch: a causal language model reads frames and descriptions and says something of every frame.

Tokens: for each frame [vis][cls][loc][adv], then the instruction with the descriptions of the candidates, then the
text to be generated. The last hidden states at [cls], [loc] and [adv] become F_lang,cls, F_lang,loc (Eq. 5) and the
predicted advantage (Eq. 2).

The paper puts the descriptions last and lets them inform the frames before them, which a causal mask forbids. Here
frames, instruction and descriptions see each other (`attention="prefix"`) and only the generated text is causal;
"descriptions first" is the other reading, and "causal" the literal one, under which descriptions change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ATTENTION = ("prefix", "descriptions first", "causal")
TOKENS = ("vis", "cls", "loc", "adv")


@dataclass(frozen=True)
class LanguageConfig:
    """Options of the branch.

    Attributes:
        feature_dim: D of the vision features.
        attention: One of `ATTENTION`.
        lm_stride: Every how many-th frame the language model sees; what it says is interpolated between them.
        first_advantage: Bias of Eq. 2, so that language starts with weight 2 sigmoid(0.5) - 1 = 0.245.
    """

    feature_dim: int
    attention: str = "prefix"
    lm_stride: int = 1
    first_advantage: float = 0.5

    def __post_init__(self):
        if self.attention not in ATTENTION:
            raise ValueError(f"attention must be one of {ATTENTION}; got {self.attention!r}")
        if self.lm_stride < 1:
            raise ValueError(f"lm_stride must be at least 1; got {self.lm_stride}")


def visible(frames: Tensor, prompt: Tensor, target: int, attention: str) -> Tensor:
    """Which token sees which: bool (B, 1, S, S), True to attend, S = frame tokens + prompt + target.

    Padding is seen by nobody but itself, so that no row is empty.

    Args:
        frames: Valid frame tokens (B, 4 T).
        prompt: Valid prompt tokens (B, N).
        target: How many tokens of text follow.
        attention: One of `ATTENTION`; with "descriptions first" the prompt stands before the frames.
    """
    known = torch.cat([prompt, frames] if attention == "descriptions first" else [frames, prompt], 1)
    valid = torch.cat([known, known.new_ones(len(known), target)], 1)
    s = valid.shape[1]
    seen = torch.ones(s, s, dtype=torch.bool, device=valid.device).tril()
    if attention == "prefix":
        seen[: s - target, : s - target] = True
    seen = seen & valid[:, None, None, :]
    return seen | torch.eye(s, dtype=torch.bool, device=valid.device)


class LanguageBranch(nn.Module):
    """A language model with the layers that take features in and out.

    Args:
        lm: A transformers causal LM with `model` (the decoder) and `lm_head`, possibly wrapped by peft.
        config: Options.

    Raises:
        ValueError: The LM's attention kernel would misread the mask: "eager" adds a bool mask as 0 and 1.
    """

    def __init__(self, lm: nn.Module, config: LanguageConfig):
        super().__init__()
        kernel = lm.config._attn_implementation
        if kernel != "sdpa":
            raise ValueError(
                f"the language model must be loaded with attn_implementation='sdpa'; got {kernel!r}, which misreads a bool mask"
            )
        hidden, dim = lm.config.hidden_size, config.feature_dim
        self.lm, self.config = lm, config
        self.take_in = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.special = nn.Parameter(0.02 * torch.randn(len(TOKENS), hidden))  # [cls], [loc], [adv] and the start of text
        self.give_out = nn.ModuleDict(
            {k: nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, dim), nn.LayerNorm(dim)) for k in ("cls", "loc")}
        )
        self.advantage = nn.Linear(hidden, 1)
        nn.init.zeros_(self.advantage.weight)
        nn.init.constant_(self.advantage.bias, config.first_advantage)

    def causal_lm(self) -> nn.Module:
        """The transformers model inside a peft wrapper, or itself."""
        return self.lm.base_model.model if hasattr(self.lm, "peft_config") else self.lm

    def _tokens(
        self, features: Tensor, mask: Tensor, prompt: Tensor, prompt_mask: Tensor, text: Tensor | None
    ) -> tuple[Tensor, Tensor, slice]:
        """Embeddings (B, S, H) of the whole sequence, what sees what, and where the frame tokens are."""
        b, t, _ = features.shape
        frames = torch.cat([self.take_in(features)[:, :, None], self.special[:3].expand(b, t, -1, -1)], 2).flatten(1, 2)
        words, first = self.causal_lm().get_input_embeddings()(prompt), self.config.attention == "descriptions first"
        parts = [words, frames] if first else [frames, words]
        if text is not None:
            parts += [self.special[3:].expand(b, -1, -1), self.causal_lm().get_input_embeddings()(text.clamp(min=0))]
        after = 0 if text is None else 1 + text.shape[1]
        attend = visible(mask.repeat_interleave(len(TOKENS), 1), prompt_mask, after, self.config.attention)
        start = words.shape[1] if first else 0
        return torch.cat(parts, 1), attend, slice(start, start + frames.shape[1])

    def forward(
        self, features: Tensor, mask: Tensor, prompt: Tensor, prompt_mask: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Read frames and prompt.

        Args:
            features: F_vis (B, T, D).
            mask: Valid frames (B, T).
            prompt: Token ids of instruction and descriptions (B, N).
            prompt_mask: Valid prompt tokens (B, N), bool.
            target: Token ids of the text to generate (B, M), -100 where padded; teacher forcing, Eq. 8.

        Returns:
            `cls`, `loc` (B, T, D), `advantage` (B, T), `hidden` (B, T', 4, H) of the frames the LM saw, and with a
            target `text_loss`, the mean cross entropy of its tokens.
        """
        lm, stride, length = self.causal_lm(), self.config.lm_stride, features.shape[1]
        text = None if target is None else target[:, :-1]
        x, attend, frames = self._tokens(features[:, ::stride], mask[:, ::stride], prompt, prompt_mask, text)
        position = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        hidden = lm.model(inputs_embeds=x, attention_mask=attend, position_ids=position, use_cache=False).last_hidden_state
        said = hidden[:, frames].unflatten(1, (-1, len(TOKENS)))
        out = {k: self._spread(self.give_out[k](said[:, :, TOKENS.index(k)]), length) for k in ("cls", "loc")}
        out |= {"advantage": self._spread(self.advantage(said[:, :, TOKENS.index("adv")]), length)[..., 0], "hidden": said}
        if target is not None:
            logits = lm.lm_head(hidden[:, -target.shape[1] :]).float()
            out["text_loss"] = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
        return out

    def _spread(self, x: Tensor, length: int) -> Tensor:
        """From every `lm_stride`-th frame (B, T', K) to all (B, T, K), linearly, the last one held."""
        if self.config.lm_stride == 1:
            return x
        at = torch.arange(length, device=x.device) / self.config.lm_stride
        low = at.floor().long()
        high, share = (low + 1).clamp(max=x.shape[1] - 1), (at - low)[:, None].to(x.dtype)
        return x[:, low] * (1 - share) + x[:, high] * share

    @torch.inference_mode()
    def generate(self, features: Tensor, mask: Tensor, prompt: Tensor, prompt_mask: Tensor, end: int, most: int) -> list[list[int]]:
        """Greedy text, up to `most` tokens or the token `end`; transformers' own `generate` cannot carry the mask.

        Returns:
            Token ids of each row, without `end`.
        """
        lm, stride = self.causal_lm(), self.config.lm_stride
        none = prompt.new_zeros(len(prompt), 0)
        x, attend, _ = self._tokens(features[:, ::stride], mask[:, ::stride], prompt, prompt_mask, none)
        known, s = attend[:, :, -1:], x.shape[1]
        position, cache, rows = torch.arange(s, device=x.device).expand(len(x), -1), None, []
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(most):
            found = lm.model(inputs_embeds=x, attention_mask=attend, position_ids=position, past_key_values=cache, use_cache=True)
            token = lm.lm_head(found.last_hidden_state[:, -1]).argmax(-1).masked_fill(done, end)
            rows.append(token)
            done = done | (token == end)
            if done.all():
                break
            x, cache = lm.get_input_embeddings()(token)[:, None], found.past_key_values
            attend = torch.cat([known, known.new_ones(len(x), 1, 1, step + 1)], -1)
            position = torch.full((len(x), 1), s + step, device=x.device)
        rows = torch.stack(rows, 1).tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]
