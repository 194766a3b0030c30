"""What readers raise of a file that is cut short, or of another kind."""

import zipfile

import torch

try:
    from safetensors import SafetensorError
except ModuleNotFoundError:  # of an extra; then nothing raises it
    SafetensorError = EOFError

# what torch raises of a pickle with other things in it; the module of that name is not for use here
UnpicklingError = torch.serialization.pickle.UnpicklingError
DAMAGED = (
    EOFError,
    LookupError,
    SafetensorError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    UnpicklingError,
    zipfile.BadZipFile,
)
