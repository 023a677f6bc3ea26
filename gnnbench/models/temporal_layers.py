"""Layers of temporal models: how many parameters each has, and what it keeps for its way back.

A layer turns the rows of R queries and their S sampled neighbours into R rows of width d. Time
encodings are phi(x) = cos(w x + b).

attention   query [h_v, phi(0)], key and value [h_u, e_uv, phi(t - t_uv)];
            LayerNorm(ReLU(W [attention(query, keys, values), h_v])), scores LeakyReLU_0.2(q k)
mean        act(W_v h_v + W_u mean_u [h_u, e_uv] + b), ReLU but in the last layer: GraphSAGE
gat         act(W_v h_v + sum_u alpha_uv W_u [h_u, e_uv] + b), ELU but in the last layer; alpha is
            the softmax of LeakyReLU_0.2(a_v W_v h_v + a_u W_u [h_u, e_uv])
mixer       W [link, node] + b. link: the mean over valid ones of f tokens [e_uv, cos(w (t - t_uv))]
            after a linear layer and two MLP-Mixer blocks, with fixed w_x = d^(-x / (2 sqrt(d)));
            node: own features plus the mean of the sampled neighbours'

Source: temporal reference section 6; GraphMixer: Cong et al., ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gnnbench.steps import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Widths of a layer: n of node rows, e of edge rows, d of its output; heads, fan-out f."""

    nodes: int
    edges: int
    hidden: int
    heads: int
    fanout: int

    @property
    def tokens(self) -> int:
        """Hidden units of the mixer's product over tokens."""
        return max(self.fanout // 2, 1)


Counted = Callable[[LayerSizes, Size, Size], Size]
"""A number of elements, from the sizes of a layer, R and S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """A kind of layer.

    Args:
        name: of its steps and operations.
        parameters: their number.
        kept: elements that it keeps for its way back, from R and S.
        back: elements that come and go on its way back, from R and S.
        timed: whether it uses the times of edges.
        host_kept, host_back: of compiled loops on the host; None: as on a device.
    """

    name: str
    parameters: Callable[[LayerSizes], int]
    kept: Counted
    back: Counted
    timed: bool = True
    host_kept: Counted | None = None
    host_back: Counted | None = None


def _attention_parameters(of: LayerSizes) -> int:
    """Query, key, value and output with their biases, time encoding, normalisation."""
    n, e, d = of.nodes, of.edges, of.hidden
    return (n + d + 1) * d + 2 * (n + e + d + 1) * d + (d + n + 1) * d + 4 * d


def _attention_kept(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Elements that attention keeps on a device, on tables padded to the fan-out.

    Time encodings and their arguments, rows of the edges and their table padded to the fan-out,
    two rows per head (a key and a sum), six of scores, and eight rows of the output's making.
    """
    n, e, d, f = of.nodes, of.edges, of.hidden, of.fanout
    both = n + e + d
    per_edge = 3 * d + both
    per_query = f * both + 2 * of.heads * both + 6 * f * of.heads + (d + n) + 8 * d
    return edges * per_edge + queries * per_query


def _attention_kept_on_host(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Elements that the loops of attention on the host keep; nothing is padded or concatenated.

    Of an edge: cosine and sine of its encoding, per head its raw score and weight. Of a query: its
    row, its product, per head a key, a sum and the sum of weights, what was found, and the output
    with its ReLU and normalisation.
    """
    n, d, heads = of.nodes, of.hidden, of.heads
    both = n + of.edges + d
    return edges * 2 * (d + heads) + queries * (n + 5 * d + 2 * heads * both + heads + 2)


def _attention_back_on_host(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Gradients of sums and keys per head, four rows of products, three of the output's making."""
    d, heads = of.hidden, of.heads
    both = of.nodes + of.edges + d
    return queries * (2 * heads * both + 7 * d + 3 * heads) + edges * heads


def _back_on_tables(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Gradients of tables padded to the fan-out and of the rows of the edges."""
    n, e, d, f = of.nodes, of.edges, of.hidden, of.fanout
    return queries * 3 * f * d + edges * 2 * (n + e + 2 * d)


def _mean_parameters(of: LayerSizes) -> int:
    """Both products and a bias."""
    return (2 * of.nodes + of.edges + 1) * of.hidden


def _mean_kept(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Inputs of the sum, their table padded to the fan-out, three means, three output rows."""
    both = of.nodes + of.edges
    return edges * (both + 1) + queries * (both * (of.fanout + 3) + 3 * of.hidden + 2)


def _gat_parameters(of: LayerSizes) -> int:
    """Both products, both vectors of the scores, a bias."""
    return (2 * of.nodes + of.edges + 3) * of.hidden


def _gat_kept(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Inputs and products, a table padded to the fan-out with its weighting, scores, output."""
    n, e, d, f = of.nodes, of.edges, of.hidden, of.fanout
    per_query = 6 * d + 2 * f * d + 7 * f * of.heads + 2 * of.heads
    return edges * (n + e + 2 * d + of.heads) + queries * per_query


def _mixer_parameters(of: LayerSizes) -> int:
    """Tokens; per block two norms, two products over tokens and two over channels; output."""
    n, e, d, f, t = of.nodes, of.edges, of.hidden, of.fanout, of.tokens
    block = 4 * d + 2 * f * t + t + f + 8 * d * d + 5 * d
    return (e + d + 1) * d + 2 * block + (d + n + 1) * d


def _mixer_kept(of: LayerSizes, queries: Size, edges: Size) -> Size:
    """Inputs of the tokens; per block ten tables [f, d] and the hidden units; means and output."""
    n, e, d, f, t = of.nodes, of.edges, of.hidden, of.fanout, of.tokens
    block = 10 * f * d + 3 * t * d + 12 * f * d + 4 * f
    per_query = f * d + 2 * block + f * (d + n) + 4 * (d + n) + d + 2 * f
    return edges * (2 * (e + d) + 2 * d + n) + queries * per_query


LAYERS = {
    kind.name: kind
    for kind in (
        LayerKind(
            name="attention",
            parameters=_attention_parameters,
            kept=_attention_kept,
            back=_back_on_tables,
            host_kept=_attention_kept_on_host,
            host_back=_attention_back_on_host,
        ),
        LayerKind(
            name="mean",
            parameters=_mean_parameters,
            kept=_mean_kept,
            back=_back_on_tables,
            timed=False,
        ),
        LayerKind(
            name="gat",
            parameters=_gat_parameters,
            kept=_gat_kept,
            back=_back_on_tables,
            timed=False,
        ),
        LayerKind(
            name="mixer",
            parameters=_mixer_parameters,
            kept=_mixer_kept,
            back=_back_on_tables,
        ),
    )
}
