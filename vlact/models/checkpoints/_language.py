"""Language models: folders in transformers' layout."""

import json
from pathlib import Path

import torch
from torch import nn

from vlact.models.weights import family

ATTENTION = "sdpa"  # the kernel that takes `vlact.models.actionvlm.LanguageBranch`'s masks


@family("a language model")
def language_model(
    folder: str | Path, dtype: torch.dtype = torch.bfloat16, taught: bool = True
) -> nn.Module:
    """The causal language model of a transformers folder, for
    `vlact.models.actionvlm.LanguageBranch`.

    Takes Qwen2.5 (or any causal model with `model` and `lm_head`) and InternVL in transformers' own
    layout, of which only the language part is kept. No code of the folder is run and nothing is
    downloaded.

    Args:
        folder: With config.json and safetensors.
        dtype: Of the weights.
        taught: False for its shape with random weights.

    Raises:
        FileNotFoundError: No such folder, or one without config or safetensors.
        ValueError: Weights that are missing, left over or of another shape, or a folder that asks
            for code of its own.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder = Path(folder)
    for name in ("config.json", "*.safetensors"):
        if not list(folder.glob(name)):
            raise FileNotFoundError(
                f"{folder}: expected a transformers folder with {name}; `make doctor "
                "PROFILE=paper` says where to get it"
            )
    config = folder / "config.json"
    try:
        note = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config}: expected JSON; {error}") from error
    if not isinstance(note, dict):
        raise ValueError(f"{config}: expected a dict; got {note!r:.80}")
    if "auto_map" in note:
        raise ValueError(
            f"{folder}: its config asks for code of its own (auto_map), which is not run; take "
            "the same model in '-hf' layout"
        )
    whole = AutoConfig.from_pretrained(folder)
    if not taught:
        return AutoModelForCausalLM.from_config(
            getattr(whole, "text_config", whole), attn_implementation=ATTENTION, dtype=dtype
        )
    kind = (
        AutoModelForImageTextToText
        if hasattr(whole, "text_config") and hasattr(whole, "vision_config")
        else AutoModelForCausalLM
    )
    given = {
        "dtype": dtype,
        "attn_implementation": ATTENTION,
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    model, found = kind.from_pretrained(folder, ignore_mismatched_sizes=True, **given)
    wrong = {
        k: sorted(map(str, found[k]))[:5]
        for k in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if found[k]
    }
    if wrong:
        raise ValueError(f"{folder}: weights do not fit its config: {wrong}")
    if kind is AutoModelForCausalLM:
        return model
    alone = AutoModelForCausalLM.from_config(
        whole.text_config, attn_implementation=ATTENTION, dtype=dtype
    )
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    return alone
