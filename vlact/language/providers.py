"""Synonym trees from a language model: any OpenAI-compatible endpoint, asked with ACE's prompt.

The other two providers need no code: a shipped file and a file edited by hand are both
`Trees.load`. Answers
are data: each is kept in a folder with its prompt, model and date, and read from there ever after,
so that a tree never changes silently and making it again needs no network. Nothing is asked unless
this module is run:

    VLACT_LLM_URL=http://localhost:8000/v1 VLACT_LLM_MODEL=qwen python -m vlact.language.providers
    ata mine.yaml
"""

import datetime
import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import yaml

from vlact import ROOT
from vlact.language.tasks import DATASETS
from vlact.language.trees import Action, Trees, phrase

PROMPT_FILE = Path(__file__).parent / "prompt.txt"  # as printed in ACE, appendix 6.1
# only the first is in the paper
SETTING = {"ata": "toy assembly", "ikea": "furniture assembly", "gtea": "cooking"}
SIZE = {"ata": 11, "ikea": 2, "gtea": 9}  # M, the word itself counted


class Endpoint:
    """Ask a chat endpoint once per prompt; the answer is kept in `folder` and read from there
    afterwards.

    Args:
        url: Base URL that ends before `/chat/completions`; None allows kept answers only.
        model: Name to ask for.
        folder: Where answers are kept, one json a prompt with `prompt, model, date, answer`.
        key: Bearer token, if the endpoint wants one.
    """

    def __init__(self, url: str | None, model: str, folder: Path, key: str | None = None):
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"the endpoint must be an http or https URL; got {url!r}")
        self.url, self.model, self.folder, self.key = url, model, Path(folder), key

    def __call__(self, prompt: str) -> str:
        """The answer's text.

        Raises:
            ValueError: No answer is kept and no URL is set, the endpoint cannot be reached, or it
                answers something else than a chat completion.
        """
        name = hashlib.sha256(f"{self.model}\n{prompt}".encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["answer"]
        if not self.url:
            raise ValueError(
                f"{path}: no answer of model {self.model!r} is kept for this prompt; set "
                "VLACT_LLM_URL to ask for one"
            )
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.key}"} if self.key else {}
        )
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:  # nosec B310
                answer = json.load(reply)["choices"][0]["message"]["content"]
            if not isinstance(answer, str):
                raise TypeError(f"content is {type(answer).__name__}")
        except (urllib.error.URLError, OSError) as error:
            raise ValueError(f"{self.url}: expected a chat endpoint, got {error}") from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{self.url}: expected a chat completion, got something else "
                f"({type(error).__name__}: {error})"
            ) from None
        kept = {
            "prompt": prompt,
            "model": self.model,
            "date": datetime.date.today().isoformat(),
            "answer": answer,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        os.replace(temporary, path)
        return answer


def prompt_for(action: Action, count: int, setting: str) -> str:
    """ACE's prompt for `count` synonyms of an action."""
    return (
        PROMPT_FILE.read_text(encoding="utf-8")
        .strip()
        .replace("toy assembly", setting)
        .replace("(X)", f"({phrase(*action)})")
        .replace(" M ", f" {count} ", 1)
    )


def check_answer(answer: str, action: Action, count: int) -> tuple[list[str], list[str]]:
    """Verbs of the usable lines, and what is wrong with the others.

    A line must be lower case without number or final punctuation, end with the action's object, and
    put before it a verb other than the action's that no earlier line used. Too few usable lines are
    a problem too; more than asked for are cut.
    """
    verb, obj = action
    verbs, problems = [], []
    for number, line in enumerate(filter(str.strip, answer.splitlines()), 1):
        text = " ".join(line.split())
        found = text.removesuffix(obj).strip() if obj and text.endswith(f" {obj}") else text
        if re.match(r"^(\d+[.)]|[-*•])", text) or re.search(r"[.,;:]$", text):
            problems.append(f"line {number}: numbering or punctuation: {text!r}")
        elif text != text.lower():
            problems.append(f"line {number}: capital letters: {text!r}")
        elif obj and not text.endswith(f" {obj}"):
            problems.append(f"line {number}: the object is not {obj!r}: {text!r}")
        elif not found or not found[0].isalpha():
            problems.append(f"line {number}: does not start with a verb: {text!r}")
        elif found == verb or found in verbs:
            problems.append(
                f"line {number}: {found!r} is "
                f"{'the verb itself' if found == verb else 'there already'}"
            )
        else:
            verbs.append(found)
    if len(verbs) < count:
        problems.append(f"expected {count} synonyms, {len(verbs)} are usable")
    return verbs[:count], problems


def make_trees(
    name: str, actions: list[Action], m: int, setting: str, ask: Callable[[str], str]
) -> Trees:
    """Both orders for the verb of every action; a verb is asked for with its first object.

    Raises:
        ValueError: An answer with too few usable lines; lists every line that failed.
    """
    first = {}
    for action in actions:
        first.setdefault(action[0], action)

    def synonyms(action: Action) -> list[str]:
        verbs, problems = check_answer(ask(prompt_for(action, m - 1, setting)), action, m - 1)
        if len(verbs) < m - 1:
            raise ValueError(f"synonyms of {phrase(*action)!r}: {'; '.join(problems)}")
        return verbs

    words = {}
    for verb, action in first.items():
        words[verb] = {verb: synonyms(action)}
        words[verb] |= {word: synonyms((word, action[1])) for word in words[verb][verb]}
    return Trees(name, words)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in DATASETS:
        print(
            f"usage: python -m vlact.language.providers {{{','.join(DATASETS)}}} OUT.yaml",
            file=sys.stderr,
        )
        return 2
    dataset, out = arguments[0], Path(arguments[1])
    model = os.environ.get("VLACT_LLM_MODEL", "gpt-4")
    ask = Endpoint(
        os.environ.get("VLACT_LLM_URL"),
        model,
        ROOT / "data" / "synonyms",
        os.environ.get("VLACT_LLM_KEY"),
    )
    base, novel = DATASETS[dataset]
    try:
        trees = make_trees(out.stem, [*base, *novel], SIZE[dataset], SETTING[dataset], ask)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    temporary = out.with_suffix(".tmp")
    temporary.write_text(
        f"# {model}, prompt of ACE's appendix 6.1, setting {SETTING[dataset]!r}\n"
        + yaml.safe_dump(trees.words, sort_keys=False),
        encoding="utf-8",
    )
    os.replace(temporary, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
