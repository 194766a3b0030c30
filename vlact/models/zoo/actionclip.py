"""ActionCLIP (2021): CLIP on frames, a transformer over time, and class names in many sentences.

The loss compares the clips of a batch with the sentences of their labels both ways; clips of one
class are all right for its sentence, so targets are shares and the loss is a divergence (KL). One
sentence is drawn a step; at test a class goes by the mean of all. Trained: both encoders and the
temporal transformer. Deviations: six temporal blocks become `blocks`; one learning rate; the text
trunk is frozen behind its projection; the sentences are our own.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept, Recognizer, every
from vlact.models.zoo.text4vis import Temporal

TEMPLATES = (
    "{}",
    "a video of {}",
    "a clip that shows {}",
    "{} on film",
    "something is {}",
    "things are {}",
    "this is {}",
    "the motion is {}",
    "a short recording of {}",
    "an example of {}",
    "here we see {}",
    "{}, seen from a camera",
    "a scene with {}",
    "what happens: {}",
    "the kind of motion is {}",
    "an animation of {}",
)


def divergence(scores: Tensor, same: Tensor) -> Tensor:
    """KL of softmax over rows from equal shares among `same` (bool); a scalar."""
    share = same / same.sum(1, keepdim=True)
    return (torch.xlogy(share, share) - share * log_softmax(scores, 1)).sum(1).mean()


class ActionCLIP(Recognizer):
    """168.5 M parameters at full size (ViT-B/16, CLIP's text tower included).

    Args:
        clip: Pretrained frame encoder; fine-tuned in place, but for its patch embedding.
        words, base, tau: See `Recognizer`; `words` must hold every name in all `TEMPLATES`.
        blocks: Of the temporal transformer.
    """

    templates = TEMPLATES

    def __init__(
        self,
        clip: FrameEncoder,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
        blocks: int = 6,
    ):
        super().__init__(words, base, tau)
        self.clip = clip
        self.temporal = Temporal(clip.config.embed_dim, clip.config.num_frames, blocks)

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, 0)}

    def trained(self):
        visual = self.clip.visual
        parts = [visual.transformer, visual.ln_post, self.temporal, self.clip.text_projection]
        return [pair for part in parts for pair in every(part)] + [
            (visual.proj.requires_grad_(), 1.0)
        ]

    def embed(self, kept: Kept) -> Tensor:
        return normalize(self.temporal(self.clip.last(kept["tokens"], 0)).float().mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.clip.embed_text(torch.stack([self.words[t] for t in texts]))

    def actions(self, names: list[list[str]]) -> Tensor:
        return super().actions([[t.format(n) for n in ns for t in TEMPLATES] for ns in names])

    def loss(self, kept: Kept, labels: Tensor) -> Tensor:
        template = TEMPLATES[int(torch.randint(len(TEMPLATES), ()))]
        text = super().actions([[template.format(n) for n in ns] for ns in self.base])[labels]
        scores, same = self.logit_scale * self.embed(kept) @ text.T, labels[:, None] == labels
        return (divergence(scores, same) + divergence(scores.T, same)) / 2
