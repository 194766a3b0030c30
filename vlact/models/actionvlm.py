"""ActionVLM, from top to bottom: what language reads, what it says, and how much of it counts.

    LanguageBranch   a causal language model reads frames and descriptions and says something of
                     every frame: F_lang,cls, F_lang,loc and the advantage that it predicts, Eq. 2
    Reader           the branch with a pointer to descriptions and the grounding readout
    lora             what of a reader is trained with the localizer
    Variant          one row of the tables
    language_weight  lambda, Eq. 4
    aggregate        F = F_vis + lambda F_lang, Eq. 5
    log_prior        language as a prior over classes, added to the logits in place of Eq. 5 (ours)
    ActionVLM        localizer and reader together

Its losses (Eq. 1, 3 and 9) are `vlact.losses.actionvlm`, its training (Alg. 1) is
`vlact.papers.actionvlm.experiments`.

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

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vlact import ROOT
from vlact.language.prompts import Prompt, published_tokenizer
from vlact.models import files
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.runtime.device import autocast, of

ATTENTION = ("prefix", "descriptions first", "causal")
TOKENS = ("vis", "cls", "loc", "adv")
TENTHS = 11  # numbers that a generated lambda is read from, 0 to 10
TEXT_WEIGHT = 0.1  # lambda_tg of Eq. 9
FUSIONS = ("features", "prior")
LEAST_PRIOR = 0.01  # of a class, so that language that is wrong can be outvoted
POINTER_SCALE = 4  # by which the pointer's products of queries and keys are divided
ALPHA = 2  # of LoRA, in ranks
NO_TOKEN = -100  # a target that does not count
MOST_WORDS, MOST_PIECES = 48, 384  # tokens of an answer, of own and of published tokenizers
# lambda in the first vision-language epochs; without it F_lang never gets a gradient
WARMUP = 0.4


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
        files.bounded(self, feature_dim=files.WIDTH, lm_stride=files.FRAMES)
        files.bounded(self, -1, numbers=files.WORDS)
        if self.attention not in ATTENTION:
            raise ValueError(f"attention must be one of {ATTENTION}; got {self.attention!r}")
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
                logits.flatten(0, 1), target.flatten(), ignore_index=NO_TOKEN
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
        """From every `lm_stride`-th frame (B, T', K) to all (B, T, K), linearly; the last holds."""
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

    def __post_init__(self):
        files.bounded(self, vocabulary=files.WORDS, hidden=files.WIDTH, pointer_dim=files.WIDTH)
        files.bounded(self, layers=files.BLOCKS, heads=files.HEADS)
        files.bounded(self, 0, poses=files.WIDTH, clause_dim=files.WIDTH)
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden must be a multiple of heads; got {self.hidden} and {self.heads}"
            )


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
        return MOST_PIECES if self.config.lm else MOST_WORDS

    def elsewhere(self, name: str) -> bool:
        """Whether a weight is not in this reader's files: it is another one's, or stays in the
        published model's folder.
        """
        return elsewhere(name, self.config.lm)

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
        pointer = (
            self.query(out["middle"][:, :, TOKENS.index("cls")])
            @ keys.transpose(1, 2)
            / POINTER_SCALE
        )
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
        config = files.config_of(ReaderConfig, note, path)
        files.inside(config.lm, path, "lm")
        return refilled(lambda: cls(config), config.lm, state, path)


def tied(name: str) -> bool:
    """Whether a weight is another one's: the head of the language model is its embedding."""
    return name.endswith("lm_head.weight")


def elsewhere(name: str, lm: str) -> bool:
    """Whether a weight is not in a reader's files: it is another one's, or stays in the folder `lm`
    of the published language model.
    """
    return tied(name) or (bool(lm) and name.startswith("branch.lm.") and "lora_" not in name)


def refilled(make: Callable[[], Reader], lm: str, state: dict[str, Tensor], path) -> Reader:
    """A reader made anew, with the weights of its file; see `vlact.models.files.built`."""
    if not lm:
        return files.built(make, state, path, lambda name: elsewhere(name, lm))
    try:  # most of it is a folder's, which is on this machine already
        made = make()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: lm: {error}") from error
    except files.BROKEN as error:
        raise ValueError(f"{path}: no module can be made of its shape: {error}") from error
    return files.fill(made, state, path, lambda name: elsewhere(name, lm))


def lora(reader: Reader, rank: int) -> Reader:
    """The reader with LoRA in its language model; what speaks of frames is trained whole, all else
    is frozen.

    Over a published language model, which nothing was aligned with, all else is trained, too.
    """
    from peft import LoraConfig, get_peft_model

    reader.requires_grad_(bool(reader.config.lm))
    reader.branch.lm.requires_grad_(False)
    if reader.config.lm:
        reader.branch.lm.gradient_checkpointing_enable({"use_reentrant": False})
    with warnings.catch_warnings():
        # peft reads a name that transformers has renamed
        warnings.simplefilter("ignore", FutureWarning)
        reader.branch.lm = get_peft_model(
            reader.branch.lm,
            LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules="all-linear"),
        )
    reader.branch.give_out.requires_grad_(True)
    reader.branch.advantage.requires_grad_(True)
    return reader


@dataclass(frozen=True)
class Variant:
    """One row of the tables.

    Attributes:
        name: As in the tables.
        weight: lambda: a number, "eq1" (the full method), "paired" (the target is measured on the
            same frame with and without language), "learned" (Eq. 2 and 4 without L_adv),
            "generated" (read off the language model's numbers at [adv]); None is vision only.
        vision: Without it F = F_lang, and every epoch has language.
        fusion: How language enters: "features", Eq. 5, or "prior", which is ours: class logits plus
            lambda times `log_prior`, boundaries from vision alone.
        joint: Whether the two are trained together; without it every epoch is vision only, and
            language joins at test.
        frozen: Whether the prior is read once, by language as it was aligned: what the pointer
            says stands in the last features of every step, see `told`.
        described: Whether candidates have descriptions, or names only.
        text_weight: lambda_tg.
        read_from: See `LanguageConfig`.
        ground: See `Reader.forward`.
        lm: "aligned", "biased" (aligned on captions that name the usual order), "random" (never
            trained) or "noise" (aligned, but Gaussian noise stands for what it says, in training
            and at test: a control for what any further input would do).
        epochs: Factor on the number of epochs.
        folds: Of the cross-fitted advantage, which then selects at test ("selective"); 0 for none.
        repaired: Whether an epoch meets every recording, and a class that it does not meet keeps
            its mean in Eq. 1; without it as in earlier versions, a row of its own.
    """

    name: str
    weight: float | str | None = None
    vision: bool = True
    fusion: str = "features"
    joint: bool = True
    frozen: bool = False
    described: bool = True
    text_weight: float = TEXT_WEIGHT
    read_from: tuple[str, str, str] = ("cls", "loc", "adv")
    ground: bool | str = True
    lm: str = "aligned"
    epochs: float = 1.0
    folds: int = 0
    repaired: bool = True

    def __post_init__(self):
        if self.frozen and self.fusion != "prior":
            raise ValueError("only a prior can be frozen; got fusion='features'")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {FUSIONS}; got {self.fusion!r}")
        if self.fusion == "prior" and not self.vision:
            raise ValueError("a prior needs vision's logits to be added to; got vision=False")

    @property
    def reads(self) -> bool:
        return self.weight is not None

    def watched(self, conditions: dict) -> bool:
        """Whether its test frames are written down: where lambda is no constant, or language is
        tested by itself.
        """
        return self.reads and (isinstance(self.weight, str) or bool(conditions))


def make_reader(folder: str, variant: Variant, rank: int) -> Reader:
    """The language model of a variant, from the folder of the alignment stage."""
    reader = Reader.load(
        f"{folder}/{'biased_reader' if variant.lm == 'biased' else 'reader'}.safetensors"
    )
    if variant.lm == "random":
        reader = Reader(ReaderConfig(**vars(reader.config)), taught=False)
    reader.branch.config = replace(reader.branch.config, read_from=variant.read_from)
    return lora(reader, rank)


def language_weight(predicted: Tensor) -> Tensor:
    """Eq. 4: lambda = 2 sigmoid(ReLU(Â)) - 1, in [0, 1); 0 where language is of no use."""
    return 2 * torch.sigmoid(torch.relu(predicted)) - 1


def aggregate(vision: Tensor, language: Tensor, weight: Tensor) -> Tensor:
    """Eq. 5: F = F_vis + lambda F_lang, (B, T, D), of (B, T, D), (B, T, D) and (B, T)."""
    return vision + weight[..., None] * language


def log_prior(pointer: Tensor, mask: Tensor, weight: Tensor, strides: list[int]) -> Tensor:
    """What language says of the class of every point, in the unit of logits.

    A point of a level with stride s has the mean q of what the pointer says of its s frames; the
    prior adds lambda (log q - log u) to the logit of a class, u being what a pointer that knows
    nothing says. It is bounded (`LEAST_PRIOR`), and 0 where language knows nothing.

    Args:
        pointer: Logits of every frame over classes and "none of them" (B, T, C + 1).
        mask: Valid frames (B, T).
        weight: lambda of every frame (B, T).
        strides: Of the levels, each a divisor of T.

    Returns:
        (B, P, C), levels after each other.
    """
    likely = pointer.softmax(-1) * mask[..., None]
    weight, out = weight * mask, []
    for stride in strides:
        frames = mask.unflatten(1, (-1, stride)).sum(2).clamp(min=1)
        mean = likely.unflatten(1, (-1, stride)).sum(2)[..., :-1] / frames[..., None]
        mine = weight.unflatten(1, (-1, stride)).sum(2) / frames
        gain = mean.clamp(min=LEAST_PRIOR).log() + math.log(pointer.shape[-1])
        out.append(mine[..., None] * gain)
    return torch.cat(out, 1)


def told(x: Tensor, dim: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Features (B, T, D) and what language said of them, of steps (B, T, D + C + 1) that carry
    both; `pointer` is (B, T, C + 1).
    """
    vision, pointer = x.split([dim, x.shape[-1] - dim], -1)
    return vision, {"pointer": pointer}


def noise_of(said: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """What a reader said with Gaussian noise in its place, of the same shape and spread.

    Args:
        said: From `ActionVLM.read`.
        generator: On the CPU.
    """
    out = dict(said)
    for key in [k for k in ("cls", "loc", "pointer") if k in said]:
        x = said[key].detach()
        drawn = torch.randn(x.shape, generator=generator).to(x)
        # by row, so that a batch's other windows change nothing
        out[key] = x.mean((1, 2), keepdim=True) + x.std((1, 2), keepdim=True) * drawn
    return out


def in_half(reader: Reader):
    """bf16; what a published language model reads is too long for attention spelled out."""
    kind = of(reader).type
    return torch.autocast(kind, torch.bfloat16) if reader.config.lm else autocast(kind)


class ActionVLM(nn.Module):
    """Localizer and reader: Eq. 2 to 5 in one module.

    Args:
        localizer: Sees standardised features.
        reader: None for vision only; has a standardisation of its own.
        mean, std: Of the localizer's standardisation (D,), undone for the reader.
        variant: How the two come together.
        reach: Steps that the language model reads at once; of a longer window it reads one part
            after the other.
        eye: From frames to features, where both are trained on frames, see `vlact.models.eye`.

    Attributes:
        half: Whether it reads in bf16; otherwise as whoever calls it does.
    """

    half = True

    def __init__(
        self,
        localizer: ActionFormer,
        reader: Reader | None,
        mean: Tensor,
        std: Tensor,
        variant: Variant,
        reach: int,
        eye: nn.Module | None = None,
    ):
        super().__init__()
        self.localizer, self.reader, self.variant, self.reach = localizer, reader, variant, reach
        self.eye = eye
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @property
    def config(self) -> LocalizerConfig:
        return self.localizer.config

    def see(self, x: Tensor) -> Tensor:
        """Standardised features of what an eye sees of frames; without an eye they are given."""
        return x if self.eye is None else (self.eye(x) - self.mean) / self.std

    def read(
        self, x: Tensor, mask: Tensor, prompt: Prompt, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What language says of standardised features (B, T, D), T a multiple of `reach`; one row
        of `target` a part.
        """
        parts = x.shape[1] // self.reach
        raw = ((x * self.std + self.mean) * mask[..., None]).unflatten(1, (parts, -1)).flatten(0, 1)
        mask = mask.unflatten(1, (parts, -1)).flatten(0, 1)
        with in_half(self.reader) if self.half else nullcontext():
            said = self.reader(raw, mask, prompt.expand(len(raw)), target, self.variant.ground)
        whole = {
            k: said[k].float().unflatten(0, (-1, parts)).flatten(1, 2)
            for k in ("hidden", "pointer", "cls", "loc", "advantage")
        }
        return whole | ({} if target is None else {"text_loss": said["text_loss"]})

    def weight(self, said: dict[str, Tensor], warm: bool = False) -> Tensor:
        """lambda of every frame (B, T)."""
        like, kind = said["advantage"], self.variant.weight
        if not isinstance(kind, str):
            return torch.full_like(like, kind)
        if warm:
            return torch.full_like(like, WARMUP)
        if kind == "generated":
            return self._generated(said, like.shape[1])
        return language_weight(like if kind == "learned" else like.detach())

    @torch.no_grad()
    def _generated(self, said: dict[str, Tensor], length: int) -> Tensor:
        branch = self.reader.branch
        head, numbers = (
            branch.causal_lm().lm_head,
            branch.config.tenths or tuple(branch.config.numbers + i for i in range(TENTHS)),
        )
        logits = head(said["hidden"][:, :, TOKENS.index("adv")].to(head.weight.dtype))
        likely = logits[..., torch.tensor(numbers, device=logits.device)].float().softmax(-1)
        worth = torch.arange(len(numbers), device=logits.device, dtype=torch.float32)
        return branch._spread((likely @ worth / (len(numbers) - 1))[..., None], length)[..., 0]

    def detect(
        self, x: Tensor, mask: Tensor, said: dict[str, Tensor] | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The localizer on Eq. 5's features, or with a prior on its logits; without `said` on
        vision alone.
        """
        if said is None:
            return self.localizer(x, mask)
        if self.variant.fusion == "prior":
            logits, distances, valid = self.localizer(x, mask)
            stride = self.reader.branch.config.lm_stride if self.reader else 1
            pointer = said["pointer"].repeat_interleave(stride, 1)[:, : x.shape[1]]
            strides = [2**level for level in range(self.config.levels)]
            return logits + log_prior(pointer, mask, weight, strides), distances, valid
        if not self.variant.vision:
            return self.localizer(said["cls"], mask, said["loc"])
        return self.localizer(
            aggregate(x, said["cls"], weight), mask, aggregate(x, said["loc"], weight)
        )
