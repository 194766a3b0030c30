"""ACE's step as the equations read: every string through the text trunk, every clip through every
block.

The oracle for `vlact.losses.ace`, `ACE.embed_sets` of `vlact.models.zoo.ace` and the kept
activations, and the slow side of the step-time ratio in notebook 11.
"""

import torch


def naive_ace_step(encoder, encode, clips, labels, plan, drawn, shadow, tau, frozen_blocks=0):
    """L_fixed + L_rand of Eq. 9 for one batch, with loops over clips and classes.

    Args:
        encoder: DualEncoder.
        encode: Strings to frozen features (N, text_dim), without a memory.
        clips: uint8 (B, T, H, W, 3).
        labels: (B,).
        plan: ActionTexts.
        drawn, shadow: What `plan.draw` gave, (C, M) each.
        tau: Temperature.
        frozen_blocks: Blocks without gradient (computed all the same).
    """
    with torch.no_grad():
        tokens = encoder.first(clips, frozen_blocks)
    video = encoder.embed_video(encoder.last(tokens, frozen_blocks).float())

    # one shadow negative a clip
    wanted = [plan.fixed, drawn] + [shadow[[y]] for y in labels.tolist()]
    strings = [plan.texts[i] for rows in wanted for row in rows for i in row]
    text = iter(encoder.embed_text(encode(strings)))
    embedded = [[[next(text) for _ in row] for row in rows] for rows in wanted]

    def similarity(clip, children):  # Eq. 3
        return sum(clip @ g for g in children) / (len(children) * tau)

    total = 0.0
    for n, y in enumerate(labels.tolist()):
        for classes in embedded[:2]:  # the root labels a, then the drawn synonyms a+
            own = similarity(video[n], classes[y])
            others = [similarity(video[n], children) for children in classes] + [
                similarity(video[n], embedded[2 + n][0])
            ]
            total = total - (own - torch.logsumexp(torch.stack(others), 0))  # Eq. 8
    return total / len(labels)
