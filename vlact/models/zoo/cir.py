"""CIR (ICCV 2023): a clip's feature rebuilt from clips of other domains, with text beside it.

SlowFast features, published as those of a trained and frozen one, pass an MLP; every clip of a
batch attends to the clips of other domains and is rebuilt from them. The class must be told from
the feature and from its mean with what was rebuilt, and the rebuilt feature must lie nearest to the
text of its class. At test no support is needed. The
benchmark has no domain labels; as in its configuration there are two times two pseudo domains, here
above or below the batch's median brightness and median red minus blue.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vlact.models.zoo.slowfast import SlowFast

HIDDEN, DIM, MIXED, TEXT, TAU = 4096, 512, 0.5, 1.0, 0.1


def pseudo_domains(clips: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) to 0..3 (B,)."""
    colour = clips.float().mean((1, 2, 3))
    bright, warm = colour.mean(1), colour[:, 0] - colour[:, 2]
    return 2 * (bright > bright.median()).long() + (warm > warm.median()).long()


class CIR(nn.Module):
    """SlowFast, and reconstruction across domains.

    Args:
        classes: Of the head.
        text: Frozen features (C, text_dim) of the class names.
        hidden, dim: Of the MLP.
        taught: State of a trained `SlowFast`, whose features are taken as they are; None trains one
            with the rest.
        options: Of `SlowFast`.
    """

    def __init__(
        self,
        classes: int,
        text: Tensor,
        hidden: int = HIDDEN,
        dim: int = DIM,
        dropout: float = 0.5,
        taught: dict[str, Tensor] | None = None,
        **options,
    ):
        super().__init__()
        self.backbone, self.taught = SlowFast(classes, dropout=0.0, **options), taught is not None
        if taught is not None:
            self.backbone.load_state_dict(taught)
            self.backbone.requires_grad_(False)
        self.frames = self.backbone.frames
        self.mlp = nn.Sequential(
            nn.Linear(self.backbone.head.in_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
        )
        self.backbone.head = nn.Identity()
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.register_buffer("text", text)
        self.say, self.head = nn.Linear(text.shape[1], dim), nn.Linear(dim, classes)

    def train(self, mode: bool = True):
        """The norms of a backbone that is taught keep what they have seen."""
        super().train(mode)
        self.backbone.train(mode and not self.taught)
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        return self.head(self.mlp(self.backbone(clips)))

    def rebuild(self, x: Tensor, domains: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) from those of other domains, and which clips had any."""
        other = domains[:, None] != domains
        scores = (self.query(x) @ self.key(x).T / x.shape[1] ** 0.5).masked_fill(
            ~other, float("-inf")
        )
        some = other.any(1)
        return scores[some].softmax(1) @ x, some

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        x = self.mlp(self.backbone(clips))
        found = cross_entropy(self.head(x), labels, label_smoothing=smoothing)
        built, some = self.rebuild(x, pseudo_domains(clips))
        if not some.any():
            return found
        mixed = cross_entropy(
            self.head((x[some] + built) / 2), labels[some], label_smoothing=smoothing
        )
        near = normalize(built, dim=-1) @ normalize(self.say(self.text), dim=-1).T / TAU
        return found + MIXED * mixed + TEXT * cross_entropy(near, labels[some])
