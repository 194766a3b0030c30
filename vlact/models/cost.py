"""What a decoder costs, by arithmetic: operations and memory of ActionVLM's language model at any
length.

Counts are of multiplications and additions (a multiply-add is two), of matrix products only, as
hardware is rated.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """Shape of a Qwen2-like decoder: grouped-query attention and a gated MLP of three matrices."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def forward_flops(self, tokens: int, logits: int = 0) -> float:
        """One pass over a sequence, with dense attention (a prefix mask saves nothing) and `logits`
        rows of the vocabulary.
        """
        products = 2 * tokens * self.layer_weights * self.layers
        attention = 4 * tokens**2 * self.heads * self.head_dim * self.layers
        return products + attention + 2 * logits * self.hidden * self.vocabulary

    def lora_weights(self, rank: int) -> int:
        """Trainable weights with LoRA on all linear layers."""
        kv = self.kv_heads * self.head_dim
        pairs = (
            [(self.hidden, self.hidden)] * 2
            + [(self.hidden, kv)] * 2
            + [(self.hidden, self.intermediate)] * 2
        )
        return (
            self.layers * rank * sum(a + b for a, b in [*pairs, (self.intermediate, self.hidden)])
        )


QWEN25_1B5 = Decoder(1536, 28, 8960, 12, 2, 151936)
QWEN25_3B = Decoder(2048, 36, 11008, 16, 2, 151936)


def sequence_length(frames: int, lm_stride: int = 1, text: int = 900) -> int:
    """Tokens of ActionVLM's sequence: four a frame that the language model sees, and instruction
    with descriptions.
    """
    return 4 * -(-frames // lm_stride) + text


def tokens_within(decoder: Decoder, seconds: float, flops_per_s: float, utilisation: float) -> int:
    """Longest sequence that a forward pass can read in a given time."""
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high)
            if decoder.forward_flops(middle) <= seconds * flops_per_s * utilisation
            else (low, middle - 1)
        )
    return low
