# SPDX-License-Identifier: Apache-2.0
"""Opening the user's task at the input shape that he asked for."""

from __future__ import annotations

from chipfit.errors import BadInput
from chipfit.tasks import Task, load_task


def open_task(spec: str | Task, input_shape: tuple[int, ...] | None = None) -> Task:
    """Return the task that ``spec`` names.

    Args:
        spec: A task, a data set's name, or a Python file.
        input_shape: ``(1, C, H, W)``; decides the image size where the data leaves it open.

    Raises:
        BadInput: The data comes in another shape that cannot be changed.
        UnknownName: No such data set.
        DataUnavailable: It is neither cached nor reachable.
        BadTask: Its files cannot be used.
    """
    if isinstance(spec, Task):
        task = spec
    else:
        scalable = spec.startswith("imagefolder") and input_shape is not None
        size = (input_shape[2], input_shape[3]) if scalable and input_shape else None
        task = load_task(spec, image_size=size)
    if input_shape is not None and tuple(task.input_shape) != tuple(input_shape):
        raise BadInput(
            f"the images of {task.name} are {tuple(task.input_shape)}, not {tuple(input_shape)}",
            "leave the input shape out, or use data of that shape",
        )
    return task
