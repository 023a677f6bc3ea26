"""What the named buffers of a plan hold: categories in which memory is reported.

Approaches name their buffers after what they hold ("topology_t", "h2", "halo_rows"); this file
knows those names. A name that it does not know counts as a communication or work buffer.
"""

from __future__ import annotations

import re

FEATURES = "features"
TOPOLOGY = "topology and labels"
PARAMETERS = "parameters and optimizer"
ACTIVATIONS = "activations and gradients"
BUFFERS = "work buffers"
CONTEXT = "framework context"
RESERVE = "allocator reserve"
EVALUATED = "evaluated_"
"""Before the names of buffers that an evaluation has to itself."""
CATEGORIES = (FEATURES, TOPOLOGY, PARAMETERS, ACTIVATIONS, BUFFERS, CONTEXT, RESERVE)

_RESIDENT = (
    (FEATURES, r"x|x_columns|features|feature_\w+|z1"),
    (
        TOPOLOGY,
        r"topology\w*|labels|row_ids|halo_ids|edge_ids|train_\w+|scales|owners|sampler|columns"
        r"|pieces|sampled_\w+",
    ),
    (PARAMETERS, r"parameters|sub_models|global_shard|optimizer\w*"),
)
_ACTIVATIONS = r"x|[a-z]{1,2}\d+|statistics\d+|scores\d*|logits\w*|\w+_grad|loss_scratch"


def category(name: str, *, resident: bool) -> str:
    """The category of a buffer; `resident` ones live from before the first iteration."""
    if name.startswith(EVALUATED):
        # An evaluation may load a share of the data for itself; it precomputes no aggregation.
        name = name.removeprefix(EVALUATED)
        resident = name != "z1"
    if resident:
        for found, pattern in _RESIDENT:
            if re.fullmatch(pattern, name):
                return found
    return ACTIVATIONS if re.fullmatch(_ACTIVATIONS, name) else BUFFERS
