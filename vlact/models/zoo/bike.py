"""BIKE (CVPR 2023): attributes written from the video, and frames weighted by how they fit the
concept.

Video concept spotting: for each category a softmax over the frames of their similarity to it pools
the frames, so every category sees its own video embedding. Attributes: the words of a lexicon that
frozen CLIP finds nearest to the clip make a sentence, whose text embedding is compared with the
category's. The two similarities are averaged. Trained as Text4Vis; text frozen.

Deviation: the saliency uses the category's own strings, not their single words; the lexicon (200
GPT-4 attributes in ACE) is made of the words of the pretraining captions, which is what this CLIP
knows.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept
from vlact.models.zoo.text4vis import Text4Vis

SHARPNESS = 100.0  # of the saliency softmax, 1 / 0.01 as in the paper
TOP = 5  # attributes per clip


class BIKE(Text4Vis):
    """Text4Vis with both branches of BIKE.

    Args:
        lexicon: Attribute words; their features must be in `words`.
        encode_text: Sentences to trunk features (N, text_dim), for the attribute sentences.
        clip, words, base, tau, blocks: See `Text4Vis`.
    """

    def __init__(
        self,
        clip: FrameEncoder,
        words: dict[str, Tensor],
        base,
        tau,
        blocks,
        lexicon: list[str],
        encode_text,
    ):
        super().__init__(clip, words, base, tau, blocks)
        self.lexicon, self.encode_text = lexicon, encode_text

    @torch.no_grad()
    def frozen_features(self, clips: Tensor) -> Kept:
        tokens = self.clip.first(clips, self.frozen)
        video = normalize(
            normalize(self.clip.last(tokens, self.frozen).float(), dim=-1).mean(1), dim=-1
        )
        near = (video @ self.embed_texts(self.lexicon).T).topk(TOP).indices.tolist()
        sentences = [
            f"This is a video about {', '.join(self.lexicon[i] for i in row)}" for row in near
        ]
        return {"tokens": tokens, "attributes": self.encode_text(sentences).to(tokens.device)}

    def encode(self, kept: Kept) -> Kept:
        return {
            "frames": self.frames(kept),
            "attributes": self.clip.embed_text(kept["attributes"].float()),
        }

    def similarity(self, seen: Kept, names: list[list[str]]) -> Tensor:
        frames, actions = seen["frames"], self.actions(names)
        each = frames @ actions.T  # (B, T, C)
        spotted = torch.einsum("btc,btd->bcd", (SHARPNESS * each).softmax(1), frames)
        video = (normalize(spotted, dim=-1) * actions).sum(-1)
        return (video + seen["attributes"] @ actions.T) / 2
