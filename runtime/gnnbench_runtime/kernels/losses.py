"""Losses with their gradients, in torch operations on any device.

Legend: n rows, C classes, t training rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_cross_entropy(
    logits_nC: Tensor,
    labels_n: Tensor,
    rows_t: Tensor,
    scale: float,
    grad_out_nC: Tensor,
    weights_t: Tensor | None = None,
) -> Tensor:
    """Return scale * sum of the training rows' losses (0-d) and write its gradient.

    Rows outside `rows_t` get zero gradient; `weights_t` weigh the losses of the others. Float
    labels [n, C] mean a multi-label task: the loss is then the sum over rows of the mean over
    classes of the binary cross-entropy.
    """
    if labels_n.dtype.is_floating_point:
        return _binary(logits_nC, labels_n, rows_t, scale, grad_out_nC, weights_t)
    grad_out_nC.zero_()
    log_tC = torch.log_softmax(logits_nC[rows_t], 1)
    picked_t1 = labels_n[rows_t].unsqueeze(1)
    losses_t1 = log_tC.gather(1, picked_t1)
    if weights_t is not None:
        losses_t1 = losses_t1 * weights_t.unsqueeze(1)
    loss = losses_t1.sum() * -scale
    grad_tC = log_tC.exp_()
    grad_tC.scatter_add_(1, picked_t1, torch.full_like(grad_tC[:, :1], -1.0))
    if weights_t is not None:
        grad_tC.mul_(weights_t.unsqueeze(1))
    grad_out_nC.index_copy_(0, rows_t, grad_tC.mul_(scale))
    return loss


def _binary(
    logits_nC: Tensor,
    labels_nC: Tensor,
    rows_t: Tensor,
    scale: float,
    grad_out_nC: Tensor,
    weights_t: Tensor | None,
) -> Tensor:
    grad_out_nC.zero_()
    logits_tC, labels_tC = logits_nC[rows_t], labels_nC[rows_t].to(logits_nC.dtype)
    scale /= max(logits_nC.shape[1], 1)
    weights_t1 = None if weights_t is None else weights_t.unsqueeze(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits_tC, labels_tC, weight=weights_t1, reduction="sum"
    )
    grad_tC = (torch.sigmoid(logits_tC) - labels_tC).mul_(scale)
    if weights_t1 is not None:
        grad_tC.mul_(weights_t1)
    grad_out_nC.index_copy_(0, rows_t, grad_tC)
    return loss * scale
