"""What ActionVLM's language model is asked: words as tokens, descriptions as clauses, for any number of candidates.

A description is cut into its clauses ("the person first runs, then leaps, and ends when .." has three), and each
clause is one token: a frozen sentence encoder's features of it, which the model projects. Twenty descriptions are
then 60 tokens instead of 400, and the order of the clauses is the order of the tokens. The paper feeds words.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlact.language.descriptions import NOTHING, SEPARATOR

INSTRUCTION = "find the start and end frames of each action , the surest first . the candidate actions include :"
CLAUSES = re.compile(r",? (?:then|and ends when the person) |the person (?:first )?")


def clauses(description: str) -> list[str]:
    """Clauses of a description as `vlact.language.descriptions.describe` writes it; any other text is one clause.

    >>> clauses("the person first runs, then leaps, and ends when the person lands sitting")
    ['runs', 'leaps', 'lands sitting']
    """
    return [c for c in (x.strip(" ,") for x in CLAUSES.split(description)) if c]


def tokenizer(names: list[str], numbers: int):
    """Words of the instruction and of answers as a transformers tokenizer; `names` and numbers are one token each.

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
    words += [w for w in dict.fromkeys([*INSTRUCTION.split(), SEPARATOR.strip(), NOTHING]) if w not in words]
    whole = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="<pad>", eos_token="<end>", additional_special_tokens=["<clause>"])


def vocabulary(path: str | Path) -> tuple[object, int]:
    """Tokenizer and steps read at once of a language model that was aligned with both; json with `names` and `steps`."""
    found = json.loads(Path(path).read_text())
    return tokenizer(found["names"], found["steps"] + 1), found["steps"]


@dataclass
class Prompt:
    """A batch of prompts.

    Attributes:
        ids: Tokens (B, N).
        clauses: Features (B, N, F) where the token is <clause>, zero elsewhere.
        mask: Valid tokens (B, N), bool.
        at: The last token of every candidate (B, K).
        names: Token of every candidate's name (B, K).
    """

    ids: Tensor
    clauses: Tensor
    mask: Tensor
    at: Tensor
    names: Tensor

    def expand(self, batch: int) -> "Prompt":
        """One prompt for a whole batch."""
        return Prompt(*(x.expand(batch, *x.shape[1:]) for x in (self.ids, self.clauses, self.mask, self.at, self.names)))

    def blank(self) -> "Prompt":
        """The same without anything in the clauses: what a reader must fail on."""
        return Prompt(self.ids, torch.zeros_like(self.clauses), self.mask, self.at, self.names)


def prompts(words, candidates: list[list[tuple[str, list[str]]]], features: dict[str, Tensor]) -> Prompt:
    """Instruction and candidates as a batch.

    Args:
        words: From `tokenizer`.
        candidates: Of each row: name and clauses of each candidate; as many candidates in every row.
        features: Of every clause (F,).

    Raises:
        ValueError: A name that is no token, a clause without features, or rows of different numbers of candidates.
    """
    if len({len(row) for row in candidates}) != 1:
        raise ValueError(f"every row needs as many candidates; got {sorted({len(row) for row in candidates})}")
    known, clause = words.get_vocab(), words.convert_tokens_to_ids("<clause>")
    first, zero = words(INSTRUCTION)["input_ids"], torch.zeros_like(next(iter(features.values())))
    rows, at, names = [], [], []
    for row in candidates:
        tokens, place = [(i, zero) for i in first], []
        for name, said in row:
            if name not in known:
                raise ValueError(f"the language model's tokenizer lacks the name {name!r}; make it with `tokenizer(names, ..)`")
            if missing := [c for c in said if c not in features]:
                raise ValueError(f"{name}: no features of the clause {missing[0]!r}")
            tokens += [(known[name], zero), *((clause, features[c]) for c in said)]
            place.append(len(tokens) - 1)
        rows.append(tokens)
        at.append(place)
        names.append([known[name] for name, _ in row])
    n = max(map(len, rows))
    pad = [[*row, *[(words.pad_token_id, zero)] * (n - len(row))] for row in rows]
    mask = np.arange(n) < np.array([len(row) for row in rows])[:, None]
    return Prompt(
        torch.tensor([[i for i, _ in row] for row in pad]),
        torch.stack([torch.stack([f for _, f in row]) for row in pad]),
        torch.from_numpy(mask),
        torch.tensor(at),
        torch.tensor(names),
    )


def prompt_of(words, classes: list[str], descriptions: list[str], said: dict[str, Tensor], described: bool = True) -> Prompt:
    """One row: every class with its description, or with its name only."""
    return prompts(words, [[(name, clauses(d) if described else []) for name, d in zip(classes, descriptions, strict=True)]], said)


def encode_clauses(descriptions: list[str], encode) -> dict[str, Tensor]:
    """Features of every clause of some descriptions, standardised over them (their cosines are all alike otherwise).

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
        ids = words(answer)["input_ids"]
        if words.pad_token_id in ids:
            raise ValueError(f"the language model's tokenizer lacks a word of {answer!r}")
        rows.append([*ids, words.eos_token_id])
    n = max(map(len, rows))
    return torch.tensor([[*row, *[-100] * (n - len(row))] for row in rows])
