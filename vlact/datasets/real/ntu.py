"""NTU RGB+D (Shahroudy et al., CVPR 2016), skeletons: a text a sequence, gzipped or not.

A file has its number of frames, then for each frame the number of bodies, and for each of these a
line about it, the number of joints and a line a joint, of which the first three numbers are metres.
"""

import gzip
from pathlib import Path

import numpy as np

JOINTS = 25


def read(path: str | Path) -> np.ndarray:
    """Joints of the first body (T, 25, 3); frames without a body are left out.

    Raises:
        ValueError: Another file, or one that is cut off.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = iter(raw.decode("ascii").splitlines())
        out = []
        for _ in range(int(next(lines))):
            for body in range(int(next(lines))):
                next(lines)
                joints = [next(lines).split()[:3] for _ in range(int(next(lines)))]
                if body == 0:
                    out.append(np.array(joints, dtype=np.float32).reshape(JOINTS, 3))
        return np.stack(out)
    except (ValueError, StopIteration, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: expected a skeleton file of NTU RGB+D; {error or 'it is cut off'}"
        ) from None
