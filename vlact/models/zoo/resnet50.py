"""ResNet50 on clips (C2D): every frame by itself, time only by pooling."""

from vlact.models.convnet3d import ConvNet3D


class ResNet50(ConvNet3D):
    """24.3 M parameters at full size with 400 classes."""

    def __init__(self, classes: int, **more):
        super().__init__(classes, ((1,),) * 5, **more)
