"""ActionVLM's language branch: a causal language model reads frames and descriptions and says
something of every frame.

Tokens: for each frame [vis][cls][loc][adv], then the instruction with the descriptions of the
candidates, then the text to be generated. The last hidden states at [cls], [loc] and [adv] become
F_lang,cls, F_lang,loc (Eq. 5) and the predicted advantage (Eq. 2).

The paper puts the descriptions last and lets them inform the frames before them, which a causal
mask forbids. Here frames, instruction and descriptions see each other (`attention="prefix"`) and
only the generated text is causal; "descriptions first" is the other reading, and "causal" the
literal one, under which descriptions change nothing.

`Reader` adds what a small language model needs to be seen reading, and to pass on what it read: a
pointer from every frame to the candidate whose description it fits, and the grounding readout, the
names pointed at as part of F_lang. Its language model is a small one of its own, or a published one
whose weights stay where they are.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlact import ROOT
from vlact.language.prompts import Prompt, published_tokenizer
from vlact.models import files

ATTENTION = ("prefix", "descriptions first", "causal")
TOKENS = ("vis", "cls", "loc", "adv")


@dataclass(frozen=True)
class LanguageConfig:
    """Options of the branch.

    Attributes:
        feature_dim: D of the vision features.
        attention: One of `ATTENTION`.
        lm_stride: Every how many-th frame the language model sees; what it says is interpolated
            between them.
        first_advantage: Bias of Eq. 2, so that language starts with weight 2 sigmoid(0.5) - 1 =
            0.245.
        numbers: Id of the token "0" where every [vis] is to carry the word of its frame's number,
            as TimeMarker marks times; -1 for none, as in the paper.
        tenths: Ids of evenly spaced numbers from 0 to 1 as the model's words, for a lambda that it
            generates; empty for the eleven from `numbers` on.
        read_from: Tokens whose states become F_lang,cls, F_lang,loc and the advantage; Table 9b
            changes them.
    """

    feature_dim: int
    attention: str = "prefix"
    lm_stride: int = 1
    first_advantage: float = 0.5
    numbers: int = -1
    tenths: tuple[int, ...] = ()
    read_from: tuple[str, str, str] = ("cls", "loc", "adv")

    def __post_init__(self):
        if self.attention not in ATTENTION:
            raise ValueError(f"attention must be one of {ATTENTION}; got {self.attention!r}")
        if self.lm_stride < 1:
            raise ValueError(f"lm_stride must be at least 1; got {self.lm_stride}")
        if len(self.read_from) != 3 or set(self.read_from) - set(TOKENS):
            raise ValueError(f"read_from must be three of {TOKENS}; got {self.read_from}")


def visible(frames: Tensor, prompt: Tensor, target: int, attention: str) -> Tensor:
    """Which token sees which: bool (B, 1, S, S), True to attend, S = frame tokens + prompt +
    target.

    Padding is seen by nobody but itself, so that no row is empty.

    Args:
        frames: Valid frame tokens (B, 4 T).
        prompt: Valid prompt tokens (B, N).
        target: How many tokens of text follow.
        attention: One of `ATTENTION`; with "descriptions first" the prompt stands before the
            frames.
    """
    known = torch.cat(
        [prompt, frames] if attention == "descriptions first" else [frames, prompt], 1
    )
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
        lm: A transformers causal LM with `model` (the decoder) and `lm_head`, possibly wrapped by
            peft.
        config: Options.

    Raises:
        ValueError: The LM's attention kernel is neither "sdpa" nor "eager" (on CPUs faster up to a
            thousand tokens).
    """

    def __init__(self, lm: nn.Module, config: LanguageConfig):
        super().__init__()
        if (kernel := lm.config._attn_implementation) not in ("sdpa", "eager"):
            raise ValueError(
                "the language model must be loaded with attn_implementation 'sdpa' or 'eager'; "
                f"got {kernel!r}"
            )
        hidden, dim = lm.config.hidden_size, config.feature_dim
        self.lm, self.config = lm, config
        self.take_in = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        # [cls], [loc], [adv] and the start of text
        self.special = nn.Parameter(0.02 * torch.randn(len(TOKENS), hidden))
        self.give_out = nn.ModuleDict(
            {
                k: nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, dim), nn.LayerNorm(dim))
                for k in ("cls", "loc")
            }
        )
        self.advantage = nn.Linear(hidden, 1)
        nn.init.zeros_(self.advantage.weight)
        nn.init.constant_(self.advantage.bias, config.first_advantage)

    def causal_lm(self) -> nn.Module:
        """The transformers model inside a peft wrapper, or itself."""
        return self.lm.base_model.model if hasattr(self.lm, "peft_config") else self.lm

    def _mask(self, seen: Tensor) -> Tensor:
        """What sees what as the kernel wants it: "sdpa" takes a bool mask, "eager" adds one."""
        if self.causal_lm().config._attn_implementation == "sdpa":
            return seen
        return torch.zeros(seen.shape, device=seen.device).masked_fill_(
            ~seen, torch.finfo(torch.float32).min
        )

    def _tokens(
        self,
        features: Tensor,
        mask: Tensor,
        prompt: Tensor,
        prompt_mask: Tensor,
        text: Tensor | None,
    ) -> tuple[Tensor, Tensor, slice, slice]:
        """Embeddings (B, S, H) of the whole sequence, what sees what, and where frame and prompt
        tokens are.
        """
        b, t, _ = features.shape
        embed, first = (
            self.causal_lm().get_input_embeddings(),
            self.config.attention == "descriptions first",
        )
        seen = self.take_in(features)
        if self.config.numbers >= 0:
            seen = seen + embed(
                self.config.numbers
                + self.config.lm_stride * torch.arange(t, device=features.device)
            )
        frames = torch.cat([seen[:, :, None], self.special[:3].expand(b, t, -1, -1)], 2).flatten(
            1, 2
        )
        words = prompt if prompt.is_floating_point() else embed(prompt)
        parts = [words, frames] if first else [frames, words]
        if text is not None:
            parts += [self.special[3:].expand(b, -1, -1), embed(text.clamp(min=0))]
        after = 0 if text is None else 1 + text.shape[1]
        attend = visible(
            mask.repeat_interleave(len(TOKENS), 1), prompt_mask, after, self.config.attention
        )
        n, m = frames.shape[1], words.shape[1]
        return (
            torch.cat(parts, 1),
            attend,
            slice(m * first, m * first + n),
            slice(n * (not first), n * (not first) + m),
        )

    def read(
        self,
        features: Tensor,
        mask: Tensor,
        prompt: Tensor,
        prompt_mask: Tensor,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """States of the language model.

        Args:
            features: F_vis (B, T, D).
            mask: Valid frames (B, T).
            prompt: Token ids of instruction and descriptions (B, N), or their embeddings (B, N, H).
            prompt_mask: Valid prompt tokens (B, N), bool.
            target: Token ids of the text to generate (B, M), -100 where padded; teacher forcing,
                Eq. 8.

        Returns:
            `hidden` (B, T', 4, H) of the frames the LM saw; of the layer before the last `middle`,
            the same shape, and `prompt` (B, N, H); with a target `text_loss`, the mean cross
            entropy of its tokens.
        """
        lm, stride = self.causal_lm(), self.config.lm_stride
        text = None if target is None else target[:, :-1]
        x, attend, frames, words = self._tokens(
            features[:, ::stride], mask[:, ::stride], prompt, prompt_mask, text
        )
        position = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        # a published model may be in bf16
        seen, own = self._mask(attend), lm.get_input_embeddings().weight.dtype
        found = lm.model(
            inputs_embeds=x.to(own),
            attention_mask=seen,
            position_ids=position,
            use_cache=False,
            output_hidden_states=True,
        )
        hidden, middle = (
            states.to(x.dtype) for states in (found.last_hidden_state, found.hidden_states[-2])
        )
        out = {
            "hidden": hidden[:, frames].unflatten(1, (-1, len(TOKENS))),
            "middle": middle[:, frames].unflatten(1, (-1, len(TOKENS))),
        }
        out["prompt"] = middle[:, words]
        if target is not None:
            logits = lm.lm_head(found.last_hidden_state[:, -target.shape[1] :]).float()
            out["text_loss"] = nn.functional.cross_entropy(
                logits.flatten(0, 1), target.flatten(), ignore_index=-100
            )
        return out

    def speak(self, hidden: Tensor, length: int, ground: Tensor | float = 0.0) -> dict[str, Tensor]:
        """F_lang,cls and F_lang,loc (B, T, D) and the predicted advantage (B, T), from states (B,
        T', 4, H).

        Args:
            hidden: From `read`.
            length: T.
            ground: Added to what F_lang,cls is made of (B, T', H).
        """
        cls, loc, adv = (hidden[:, :, TOKENS.index(k)] for k in self.config.read_from)
        said = {
            "cls": self.give_out["cls"](cls + ground),
            "loc": self.give_out["loc"](loc),
            "advantage": self.advantage(adv),
        }
        out = {k: self._spread(x, length) for k, x in said.items()}
        return out | {"advantage": out["advantage"][..., 0]}

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        prompt: Tensor,
        prompt_mask: Tensor,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """`read`, then `speak`: everything that the two return."""
        out = self.read(features, mask, prompt, prompt_mask, target)
        return out | self.speak(out["hidden"], features.shape[1])

    def _spread(self, x: Tensor, length: int) -> Tensor:
        """From every `lm_stride`-th frame (B, T', K) to all (B, T, K), linearly, the last one held."""
        if self.config.lm_stride == 1:
            return x
        at = torch.arange(length, device=x.device) / self.config.lm_stride
        low = at.floor().long()
        high, share = (low + 1).clamp(max=x.shape[1] - 1), (at - low)[:, None].to(x.dtype)
        return x[:, low] * (1 - share) + x[:, high] * share

    @torch.inference_mode()
    def generate(
        self,
        features: Tensor,
        mask: Tensor,
        prompt: Tensor,
        prompt_mask: Tensor,
        end: int,
        most: int,
    ) -> list[list[int]]:
        """Greedy text, up to `most` tokens or the token `end`; transformers' own `generate` cannot
        carry the mask.

        Returns:
            Token ids of each row, without `end`.
        """
        lm, stride = self.causal_lm(), self.config.lm_stride
        none = prompt.new_zeros(len(prompt), 0, dtype=torch.long)
        x, attend, *_ = self._tokens(
            features[:, ::stride], mask[:, ::stride], prompt, prompt_mask, none
        )
        known, s = attend[:, :, -1:], x.shape[1]
        position, cache, rows = torch.arange(s, device=x.device).expand(len(x), -1), None, []
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(most):
            seen = self._mask(attend)
            x = x.to(lm.get_input_embeddings().weight.dtype)
            found = lm.model(
                inputs_embeds=x,
                attention_mask=seen,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
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


@dataclass(frozen=True)
class ReaderConfig:
    """Shape of a reader.

    Attributes:
        vocabulary: Words of the tokenizer.
        poses: Poses that alignment names; 0 for no heads that name them.
        clause_dim: Features of a clause; 0 where descriptions are words.
        hidden, layers, heads: Of the Qwen2 decoder; a published one has its own.
        pointer_dim: Of queries and keys of the pointer.
        language: Options of the branch, as a dict.
        lm: Folder of a published language model, a path from the repository's root; "" for a small
            Qwen2 of its own.
    """

    vocabulary: int
    poses: int
    clause_dim: int = 384
    hidden: int = 64
    layers: int = 3
    heads: int = 2
    pointer_dim: int = 32
    language: dict | None = None
    lm: str = ""


class Reader(nn.Module):
    """A small Qwen2 with the language branch, a pointer from frames to descriptions, and heads for
    its alignment.

    The pointer compares states of the layer before the last, [cls] of a frame with the last token
    of a candidate; one more key stands for "none of them". First and last pose are asked of frames
    and candidates through the same heads, which is what makes the pointer emerge. Small heads lose
    positions: at most 2 of 64 dimensions.

    Args:
        config: Its shape.
        taught: Whether a published language model comes with its weights.

    Raises:
        FileNotFoundError, ValueError: See `vlact.models.checkpoints.language_model`.
    """

    def __init__(self, config: ReaderConfig, taught: bool = True):
        super().__init__()
        self.config, language = config, dict(config.language or {})
        language |= {k: tuple(language[k]) for k in ("read_from", "tenths") if k in language}
        if config.lm:
            from vlact.models.checkpoints import language_model

            lm = language_model(ROOT / config.lm, taught=taught)
        else:
            lm = self._small(config)
        h = lm.config.hidden_size
        self.branch = LanguageBranch(lm, LanguageConfig(**language))
        self.clause = (
            nn.Sequential(nn.Linear(config.clause_dim, 2 * h), nn.GELU(), nn.Linear(2 * h, h))
            if config.clause_dim
            else None
        )
        self.query, self.key = nn.Linear(h, config.pointer_dim), nn.Linear(h, config.pointer_dim)
        self.none = nn.Parameter(torch.zeros(config.pointer_dim))
        self.value = nn.LayerNorm(h)
        self.now, self.first, self.last = (
            (nn.Linear(h, config.poses) for _ in range(3)) if config.poses else (None,) * 3
        )

    @staticmethod
    def _small(config: ReaderConfig) -> nn.Module:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        h = config.hidden
        shape = Qwen2Config(
            vocab_size=config.vocabulary,
            hidden_size=h,
            intermediate_size=4 * h,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=8192,
            rope_theta=1e6,
            tie_word_embeddings=True,
        )
        return Qwen2ForCausalLM._from_config(shape, attn_implementation="eager")

    @classmethod
    def over(cls, lm: str, feature_dim: int, lm_stride: int = 1) -> "Reader":
        """One that was not aligned yet, over a published language model (see `ReaderConfig.lm`),
        which reads words.

        Its lambda is generated as a digit: 0 to 9 ninths.

        Raises:
            FileNotFoundError, ValueError: See `vlact.models.checkpoints.language_model`; or a
                tokenizer without single digits.
        """
        words = published_tokenizer(ROOT / lm)
        digits = [words(str(i), add_special_tokens=False)["input_ids"] for i in range(10)]
        if any(len(ids) != 1 for ids in digits):
            raise ValueError(f"{lm}: expected a tokenizer that has every digit as one token")
        language = {
            "feature_dim": feature_dim,
            "lm_stride": lm_stride,
            "tenths": [ids[0] for ids in digits],
        }
        return cls(ReaderConfig(len(words), poses=0, clause_dim=0, language=language, lm=lm))

    @property
    def most_words(self) -> int:
        """Tokens of an answer: over twice the longest one in the stadium; a published tokenizer
        cuts names and numbers into pieces.
        """
        return 384 if self.config.lm else 48

    def elsewhere(self, name: str) -> bool:
        """Whether a weight is not in this reader's files: it is another one's, or stays in the
        published model's folder.
        """
        return tied(name) or (
            bool(self.config.lm) and name.startswith("branch.lm.") and "lora_" not in name
        )

    def embed(self, prompt: Prompt) -> Tensor:
        """Embeddings of a prompt (B, N, H)."""
        words = self.branch.causal_lm().get_input_embeddings()(prompt.ids)
        if self.clause is None:
            return words
        said = prompt.clauses.abs().sum(-1, keepdim=True) > 0
        return words + said * self.clause(prompt.clauses)

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        prompt: Prompt,
        target: Tensor | None = None,
        ground: bool | str = True,
    ) -> dict[str, Tensor]:
        """Read, point, speak.

        Args:
            features, mask, target: See `LanguageBranch.read`.
            prompt: K candidates.
            ground: Whether the names pointed at are added to [cls] (the grounding readout); "only"
                takes nothing else.

        Returns:
            What `LanguageBranch` returns, and `pointer`, logits (B, T', K + 1) of which the last is
            "none of them", and `candidates`, their states (B, K, H).
        """
        out = self.branch.read(features, mask, self.embed(prompt), prompt.mask, target)
        states = torch.gather(
            out["prompt"], 1, prompt.at[..., None].expand(-1, -1, out["prompt"].shape[-1])
        )
        keys = torch.cat([self.key(states), self.none.expand(len(states), 1, -1)], 1)
        pointer = self.query(out["middle"][:, :, TOKENS.index("cls")]) @ keys.transpose(1, 2) / 4
        known = (prompt.names >= 0)[..., None]
        names = self.branch.causal_lm().get_input_embeddings()(prompt.names.clamp(min=0)) * known
        names = self.value((names.sum(2) / known.sum(2)).to(states.dtype))
        said = pointer.softmax(-1)[..., :-1] @ names if ground else 0.0
        hidden = out["hidden"]
        if ground == "only":
            hidden = (
                hidden
                * (torch.arange(len(TOKENS), device=hidden.device) != TOKENS.index("cls"))[:, None]
            )
        return (
            out
            | {"pointer": pointer, "candidates": states}
            | self.branch.speak(hidden, features.shape[1], said)
        )

    def save(self, path: str | Path) -> None:
        """Weights and shape as one safetensors file."""
        files.save(
            path,
            "reader",
            asdict(self.config),
            {k: v for k, v in self.state_dict().items() if not self.elsewhere(k)},
        )

    @classmethod
    def load(cls, path: str | Path) -> "Reader":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, or one whose weights do not fit its shape.
        """
        note, state = files.read(path, "reader")
        self = cls(ReaderConfig(**note))
        return files.fill(self, state, path, self.elsewhere)


def tied(name: str) -> bool:
    """Whether a weight is another one's: the head of the language model is its embedding."""
    return name.endswith("lm_head.weight")
