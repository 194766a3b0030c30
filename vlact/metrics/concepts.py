"""How tight and how far apart concepts lie in the text space (numbers beside ACE's Figure 5)."""

import numpy as np
import pandas as pd


def concept_space(nodes: pd.DataFrame) -> dict[str, float]:
    """Spread, distance and nearest-concept accuracy of one model's tree nodes of one mode.

    Args:
        nodes: Rows with `concept`, `order` (0 root, 1, 2) and the unit embedding in `e0..`.

    Returns:
        `within`: mean cosine distance of a node to its concept's centre; `between`: mean cosine
            distance
        of two concepts' centres; `ratio` = within / between; `nearest`: share of all nodes whose
        nearest centre is their own concept's. A centre is the mean of the root's children (orders 0
        and 1), as in Eq. 3. Distances in 0..2.

    Raises:
        ValueError: Fewer than two concepts.
    """
    columns = [c for c in nodes if c.startswith("e") and c[1:].isdigit()]
    names = list(dict.fromkeys(nodes["concept"]))
    if len(names) < 2:
        raise ValueError(f"concept_space needs at least two concepts; got {names}")
    x = nodes[columns].to_numpy(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    own = nodes["concept"].map({n: i for i, n in enumerate(names)}).to_numpy()
    first = (nodes["order"] <= 1).to_numpy()
    centres = np.stack([x[(own == i) & first].mean(0) for i in range(len(names))])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    cosine = x @ centres.T
    apart = 1 - (centres @ centres.T)[np.triu_indices(len(names), 1)]
    within = float((1 - cosine[np.arange(len(x)), own]).mean())
    between = float(apart.mean())
    return {
        "within": within,
        "between": between,
        "ratio": within / between,
        "nearest": float((cosine.argmax(1) == own).mean()),
    }
