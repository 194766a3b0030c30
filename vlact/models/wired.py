"""Re2TAL and ViT-TAD in the encoder made here: what `vlact.models.adatad.EndToEnd` is to AdaTAD.

`Rewired` makes the pretrained blocks of a `DualEncoder` reversible, as Re2TAL rewires a pretrained
backbone: the attentions of a block are what the second stream adds to the first, its MLP what the
first then adds to the second, with the weights they have; the mean of both streams goes on.
`Propagated` adds ViT-TAD's two propagations: attention over the whole window for each patch
position, after every third block and the last one, and blocks over time behind the encoder. In both
the whole encoder is trained.
"""

import torch
from torch import Tensor, nn

from vlact.models.adatad import Attention, EndToEnd
from vlact.models.dual import DualEncoder
from vlact.models.vittad import EVERY, After
from vlact.models.zoo.revmvit import Reversible, ReversibleBlock

AFTER = 3  # blocks behind the encoder
HEADS = 4  # of attention over the window


class Nothing(nn.Module):
    """Zeros."""

    def forward(self, x: Tensor, *more) -> Tensor:
        return torch.zeros_like(x)


class Attentions(nn.Module):
    """What the attentions of a TimeSformer's block add to its input; the MLP is taken out of it."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        layer.layernorm_after, layer.intermediate, layer.output = (
            nn.Identity(),
            nn.Identity(),
            Nothing(),
        )

    def forward(self, x: Tensor, size=None) -> Tensor:
        return self.layer(x)[0] - x


class Block(ReversibleBlock):
    """A pretrained block of a TimeSformer on two streams."""

    def __init__(self, layer: nn.Module):
        nn.Module.__init__(self)
        self.g = MLP(layer.layernorm_after, layer.intermediate, layer.output)
        self.f = Attentions(layer)


class MLP(nn.Module):
    """A block's norm and MLP; HF's `output` also takes what it is added to, which is zero here."""

    def __init__(self, norm: nn.Module, first: nn.Module, last: nn.Module):
        super().__init__()
        self.norm, self.first, self.last = norm, first, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.norm(x)))


class Rewired(EndToEnd):
    """See `EndToEnd`; the encoder's blocks are reversible.

    Args:
        encoder, localizer, stride: See there.
        reversible: False keeps all activations: the same numbers with ordinary backpropagation.
    """

    def __init__(
        self, encoder: DualEncoder, localizer: nn.Module, stride: int = 1, reversible: bool = True
    ):
        super().__init__(encoder, localizer, stride, adapted=False)
        inner = encoder.trunk.encoder
        self.blocks, self.reversible = nn.ModuleList(map(Block, inner.layer)), reversible
        inner.layer = nn.ModuleList()  # they are here
        for part in (self.blocks, encoder.trunk.embeddings, encoder.trunk.layernorm):
            part.requires_grad_(True)

    def through(self, tokens: Tensor, windows: int, clip: int) -> Tensor:
        if self.reversible and torch.is_grad_enabled():
            a, b = Reversible.apply(tokens, tokens, self.blocks, None)
        else:
            a = b = tokens
            for block in self.blocks:
                a, b = block(a, b, None)
        return (a + b) / 2


class Propagated(EndToEnd):
    """See `EndToEnd`; frames of a window see each other inside the encoder and behind it."""

    def __init__(self, encoder: DualEncoder, localizer: nn.Module, stride: int = 1):
        super().__init__(encoder, localizer, stride, adapted=False)
        encoder.trunk.requires_grad_(True)
        dim, depth = encoder.config.dim, encoder.config.depth
        places = [i for i in range(depth) if (i + 1) % EVERY == 0 or i + 1 == depth]
        self.inner = nn.ModuleDict({str(i): Attention(dim, HEADS) for i in places})
        for attention in self.inner.values():  # nothing at first
            nn.init.zeros_(attention.proj.weight)
            nn.init.zeros_(attention.proj.bias)
        self.after = nn.ModuleList(After(dim, HEADS) for _ in range(AFTER))

    def through(self, tokens: Tensor, windows: int, clip: int) -> Tensor:
        for i, layer in enumerate(self.encoder.trunk.encoder.layer):
            tokens = layer(tokens)[0]
            if str(i) in self.inner:
                tokens = self.propagated(self.inner[str(i)], tokens, windows, clip)
        return tokens

    @staticmethod
    def propagated(attention: nn.Module, tokens: Tensor, windows: int, clip: int) -> Tensor:
        """Patch positions of clips (B, 1 + P clip, D), each over all frames of its window."""
        first, rest = tokens[:, :1], tokens[:, 1:]
        # (windows, clips, P, clip, D): positions outside and frames inside, as TimeSformer has them
        over = rest.unflatten(1, (-1, clip)).unflatten(0, (windows, -1)).transpose(1, 2)
        seen = attention(over.flatten(2, 3).flatten(0, 1))
        seen = seen.view(over.shape).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        return torch.cat([first, rest + seen], 1)

    def features(self, frames: Tensor) -> Tensor:
        seen = super().features(frames)
        for block in self.after:
            seen = block(seen)
        return seen


WIRED = {"Re2TAL": Rewired, "ViT-TAD": Propagated}
