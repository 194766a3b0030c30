"""I3D (CVPR 2017) on ResNet-50: 2-D kernels inflated in time, in every other block of the later
stages.
"""

from vlact.models.convnet3d import ConvNet3D


class I3D(ConvNet3D):
    """28.0 M parameters at full size with 400 classes."""

    def __init__(self, classes: int, **more):
        super().__init__(classes, ((5,), (3,), (3, 1), (3, 1), (1, 3)), **more)
