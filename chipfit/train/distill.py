# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: Hinton, Vinyals and Dean, 2015, arXiv 1503.02531."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 KL(softmax(teacher / T) || softmax(student / T))``, averaged over images.

    Its gradient with respect to the student's logits is ``T (p_s - p_t) / N`` for ``N`` images.

    Args:
        student: Logits ``(N, classes)``.
        teacher: Logits ``(N, classes)``.
        temperature: ``T``, positive; higher ones weigh the unlikely classes more.
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2
