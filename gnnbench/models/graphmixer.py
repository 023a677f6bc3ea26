"""GraphMixer: an MLP-Mixer over the most recent edges of each end (Cong et al., ICLR 2023).

Deviation: the node encoder averages the sampled neighbours, not all within a time gap; the knob
`window` bounds both encoders.
"""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="graphmixer",
    title="GraphMixer",
    paper="Cong, Zhang, Kang, Yuan, Wu, Zhou, Tong and Mahdavi, Do We Really Need "
    "Complicated Model Architectures for Temporal Networks?, ICLR 2023",
    normalisation="mean",
    strategy="recent",
    layer="mixer",
)
