"""One file a paper: tensors in, a dict of named scalar terms out. No models, no loops, no files."""
