"""What ActionVLM's language model is asked: words as tokens, descriptions as clauses, for any
number of candidates.

A description is cut into its clauses ("the person first runs, then leaps, and ends when .." has
three), and each
clause is one token: a frozen sentence encoder's features of it, which the model projects. Twenty
descriptions are then 60 tokens instead of 400, and the order of the clauses is the order of the
tokens. The paper feeds words, and so does a published language model here, with the tokenizer that
it comes with.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlact import ROOT
from vlact.language.descriptions import NOTHING, SEPARATOR
from vlact.runtime.extras import needs

with needs("vlact.language.prompts"):
    from safetensors.torch import load_file

INSTRUCTION = (
    "find the start and end frames of each action , the surest first . "
    "the candidate actions include :"
)
CLAUSES = re.compile(r",? (?:then|and ends when the person) |the person (?:first )?")


def clauses(description: str) -> list[str]:
    """Clauses of a description as `vlact.language.descriptions.describe` writes it; any other text
    is one clause.

    >>> clauses("the person first runs, then leaps, and ends when the person lands sitting")
    ['runs', 'leaps', 'lands sitting']
    """
    return [c for c in (x.strip(" ,") for x in CLAUSES.split(description)) if c]


def tokenizer(names: list[str], numbers: int):
    """Words of the instruction and of answers as a transformers tokenizer; `names` and numbers are
    one token each.

    Args:
        names: Class names, one word each.
        numbers: "0" to str(numbers - 1) are frames.

    Raises:
        ValueError: A name of several words.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if bad := [n for n in names if len(n.split()) != 1]:
        raise ValueError(f"class names must be one word each; got {bad[0]!r}")
    words = ["<pad>", "<end>", "<clause>", *map(str, range(numbers)), *names]
    words += [
        w
        for w in dict.fromkeys([*INSTRUCTION.split(), SEPARATOR.strip(), NOTHING])
        if w not in words
    ]
    whole = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<clause>"],
    )


def published_tokenizer(folder: str | Path):
    """The tokenizer that a published language model comes with; no code of the folder is run and
    nothing is downloaded.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: It has no token that ends a text, or none to pad with.
    """
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a transformers folder; `make doctor PROFILE=paper` says where to "
            "get it"
        )
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if words.eos_token_id is None or words.pad_token_id is None:
        raise ValueError(f"{folder}: its tokenizer has no eos_token or no pad_token")
    return words


def language_of(folder: str | Path) -> tuple[object, int, dict[str, Tensor]]:
    """What a reader's folder says of its language.

    Args:
        folder: With words.json, which has `steps`, and the `names` that the reader was aligned with
            or the `folder` of a published language model, a path from the repository's root; with
            names, clauses.safetensors beside it.

    Returns:
        Tokenizer, steps that the language model reads at once, and features of clauses, none of a
        published one.
    """
    found = json.loads((Path(folder) / "words.json").read_text(encoding="utf-8"))
    if "folder" in found:
        return published_tokenizer(ROOT / found["folder"]), found["steps"], {}
    return (
        tokenizer(found["names"], found["steps"] + 1),
        found["steps"],
        load_file(Path(folder) / "clauses.safetensors"),
    )


@dataclass
class Prompt:
    """A batch of prompts.

    Attributes:
        ids: Tokens (B, N).
        clauses: Features (B, N, F) where the token is <clause>, zero elsewhere; F is 0 where
            descriptions are words.
        mask: Valid tokens (B, N), bool.
        at: The last token of every candidate (B, K).
        names: Tokens of every candidate's name (B, K, L), -1 where padded.
    """

    ids: Tensor
    clauses: Tensor
    mask: Tensor
    at: Tensor
    names: Tensor

    def expand(self, batch: int) -> "Prompt":
        """One prompt for a whole batch."""
        return Prompt(
            *(
                x.expand(batch, *x.shape[1:])
                for x in (self.ids, self.clauses, self.mask, self.at, self.names)
            )
        )

    def blank(self) -> "Prompt":
        """The same without anything in the clauses: what a reader must fail on."""
        return Prompt(self.ids, torch.zeros_like(self.clauses), self.mask, self.at, self.names)


def prompts(
    words, candidates: list[list[tuple[str, list[str]]]], features: dict[str, Tensor]
) -> Prompt:
    """Instruction and candidates as a batch.

    Args:
        words: From `tokenizer` or `published_tokenizer`.
        candidates: Of each row: name and clauses of each candidate; as many candidates in every
            row.
        features: Of every clause (F,); none where the tokenizer is a published one, whose words
            they become.

    Raises:
        ValueError: A name that is no token, a clause without features, or rows of different numbers
            of candidates.
    """
    if len({len(row) for row in candidates}) != 1:
        raise ValueError(
            f"every row needs as many candidates; got {sorted({len(row) for row in candidates})}"
        )
    known = words.get_vocab()
    clause, zero = (
        known.get("<clause>"),
        torch.zeros_like(next(iter(features.values()), torch.zeros(0))),
    )

    def plain(text: str) -> list[tuple[int, Tensor]]:
        return [(i, zero) for i in words(text, add_special_tokens=False)["input_ids"]]

    def candidate(
        name: str, said: list[str]
    ) -> tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]:
        """Tokens of a name and of what is said of it."""
        if clause is None:
            return plain(f" {name}"), [t for text in said for t in plain(f": {text}.")]
        if name not in known:
            raise ValueError(
                f"the language model's tokenizer lacks the name {name!r}; make it with "
                "`tokenizer(names, ..)`"
            )
        if missing := [c for c in said if c not in features]:
            raise ValueError(f"{name}: no features of the clause {missing[0]!r}")
        return [(known[name], zero)], [(clause, features[c]) for c in said]

    rows, at, names = [], [], []
    for row in candidates:
        tokens, place, called = plain(INSTRUCTION), [], []
        for name, said in row:
            own, more = candidate(name, said)
            tokens += own + more
            place.append(len(tokens) - 1)
            called.append([i for i, _ in own])
        rows.append(tokens)
        at.append(place)
        names.append(called)
    n, longest = max(map(len, rows)), max(len(own) for row in names for own in row)
    pad = [[*row, *[(words.pad_token_id, zero)] * (n - len(row))] for row in rows]
    mask = np.arange(n) < np.array([len(row) for row in rows])[:, None]
    return Prompt(
        torch.tensor([[i for i, _ in row] for row in pad]),
        torch.stack([torch.stack([f for _, f in row]) for row in pad]),
        torch.from_numpy(mask),
        torch.tensor(at),
        torch.tensor([[own + [-1] * (longest - len(own)) for own in row] for row in names]),
    )


def prompt_of(
    words,
    classes: list[str],
    descriptions: list[str],
    said: dict[str, Tensor],
    described: bool = True,
) -> Prompt:
    """One row: every class with its description, or with its name only."""
    told = [(clauses(d) if said else [d]) if described else [] for d in descriptions]
    return prompts(words, [list(zip(classes, told, strict=True))], said)


def encode_clauses(descriptions: list[str], encode) -> dict[str, Tensor]:
    """Features of every clause of some descriptions, standardised over them (their cosines are all
    alike otherwise).

    Args:
        descriptions: Texts.
        encode: Strings to features (N, F), for example `vlact.models.text.sentence_encoder()`.
    """
    said = sorted({c for d in descriptions for c in clauses(d)})
    found = encode([f"the person {c}" for c in said]).clone()
    found = (found - found.mean(0)) / found.std(0).clamp(min=1e-6)
    return dict(zip(said, found, strict=True))


def targets(words, answers: list[str]) -> Tensor:
    """Answers as tokens with <end>, -100 where padded (B, M).

    Raises:
        ValueError: A word that is no token.
    """
    rows = []
    for answer in answers:
        ids = words(answer, add_special_tokens=False)["input_ids"]
        if words.pad_token_id in ids:
            raise ValueError(f"the language model's tokenizer lacks a word of {answer!r}")
        rows.append([*ids, words.eos_token_id])
    n = max(map(len, rows))
    return torch.tensor([[*row, *[-100] * (n - len(row))] for row in rows])
