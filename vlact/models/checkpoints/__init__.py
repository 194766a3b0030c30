"""Published checkpoints into the models here, one file a family; what the families have in common
is `vlact.models.weights`.
"""

from vlact.models.checkpoints._clip import (
    OPENAI_MEAN,
    OPENAI_STD,
    image_tower,
    openai_clip,
)
from vlact.models.checkpoints._internvideo2 import INTERNVIDEO2, internvideo2
from vlact.models.checkpoints._language import language_model
from vlact.models.checkpoints._mvitv2 import MVITV2, mvitv2
from vlact.models.checkpoints._pytorchvideo import CONVNET3D, HEAD, SLOWFAST, X3D, pytorchvideo
from vlact.models.checkpoints._timesformer import TIMESFORMER, timesformer
from vlact.models.checkpoints._uniformerv2 import (
    PYSLOWFAST_MEAN,
    PYSLOWFAST_STD,
    UNIFORMERV2,
    uniformerv2,
)
from vlact.models.checkpoints._video import VideoEncoder
from vlact.models.checkpoints._videomae import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MMACTION2,
    VIDEOMAE,
    VideoMAE,
    videomae,
)
from vlact.models.checkpoints._xclip import XCLIP, XCLIP_TEXT, xclip
from vlact.models.clip_text import text_tower
from vlact.models.weights import (
    Rules,
    blocks_of,
    load,
    own_head,
    own_pixels,
    read,
    stretch,
    translate,
)

__all__ = [
    "CONVNET3D",
    "HEAD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERNVIDEO2",
    "MMACTION2",
    "MVITV2",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "PYSLOWFAST_MEAN",
    "PYSLOWFAST_STD",
    "SLOWFAST",
    "TIMESFORMER",
    "UNIFORMERV2",
    "VIDEOMAE",
    "X3D",
    "XCLIP",
    "XCLIP_TEXT",
    "Rules",
    "VideoEncoder",
    "VideoMAE",
    "blocks_of",
    "image_tower",
    "internvideo2",
    "language_model",
    "load",
    "mvitv2",
    "openai_clip",
    "own_head",
    "own_pixels",
    "pytorchvideo",
    "read",
    "stretch",
    "text_tower",
    "timesformer",
    "translate",
    "uniformerv2",
    "videomae",
    "xclip",
]
