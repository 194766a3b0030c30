"""What a run's processes need, imported once by their forkserver: DVC, papermill, kernels, and the
libraries of notebooks.
"""

# ruff: noqa: F401
import os

from vlact.runtime.extras import needs

# matplotlib reads its own once; a kernel would set it
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
with needs("vlact.runtime.preload"):
    import av
    import decord
    import dvc.cli
    import dvc.commands.repro
    import dvc.repo.reproduce
    import ipykernel.heartbeat
    import ipykernel.iostream
    import ipykernel.ipkernel
    import joblib
    import matplotlib.pyplot
    import nbclient
    import numba
    import open_clip.transformer
    import pandas
    import papermill.cli
    import papermill.execute
    import peft
    import pyarrow.parquet
    import safetensors.torch
    import scipy.optimize
    import seaborn
    import torch.utils.data
    import torchvision
    import tqdm.auto
    import transformers.models.auto.modeling_auto
    import transformers.models.auto.tokenization_auto
    import transformers.models.bert.modeling_bert
    import transformers.models.qwen2.modeling_qwen2
    import transformers.models.timesformer.modeling_timesformer
