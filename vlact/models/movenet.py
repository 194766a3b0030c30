"""MoveNet (single pose, lightning, int8) through its runtime, frozen: frames to joints in them.

The runtime is `ai-edge-litert`, optional: without it nothing here runs, and a table says so.
"""

from pathlib import Path

import numpy as np

SIZE = 192  # pixels that it sees, square
JOINTS = 17  # of COCO: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
PACKAGE = "ai-edge-litert"


class MoveNet:
    """A loaded model.

    Args:
        path: `movenet_single_pose_lightning_ptq.tflite`.

    Raises:
        ModuleNotFoundError: The runtime is not installed; says how.
        ValueError: Another file, or a model of other shapes.
    """

    def __init__(self, path: str | Path):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"MoveNet runs through {PACKAGE}, which is not installed; "
                f"`pip install {PACKAGE}` brings it"
            ) from None
        try:
            self.runtime = Interpreter(str(path), num_threads=1)
            self.runtime.allocate_tensors()
            (into,), (out,) = self.runtime.get_input_details(), self.runtime.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: expected MoveNet as tflite; {error}") from None
        shapes = tuple(map(int, into["shape"])), tuple(map(int, out["shape"]))
        if shapes != ((1, SIZE, SIZE, 3), (1, 1, JOINTS, 3)):
            raise ValueError(f"{path}: expected MoveNet single pose, got shapes {shapes}")
        self.into, self.out = into["index"], out["index"]

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T, 192, 192, 3), RGB, to `x, y, confidence` (T, 17, 3), x and y in 0..1."""
        found = np.empty((len(frames), JOINTS, 3), np.float32)
        for i, frame in enumerate(frames):
            self.runtime.set_tensor(self.into, frame[None])
            self.runtime.invoke()
            found[i] = self.runtime.get_tensor(self.out)[0, 0][:, [1, 0, 2]]
        return found
