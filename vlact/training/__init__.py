from vlact._renamed import names_of
from vlact.runtime.extras import needs

with needs(__name__):
    import safetensors  # noqa: F401  # of all its modules

__getattr__ = names_of(__name__)
