from vlact.runtime.extras import needs

with needs(__name__):
    import safetensors  # noqa: F401  # of all its modules
