"""The linear scaling rule as a change of the config (Goyal et al. 2017, arXiv 1706.02677)."""

import logging

from detectron2.config import CfgNode

__all__ = ["auto_scale_workers"]


def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
    """Adapts a config written for SOLVER.REFERENCE_WORLD_SIZE processes to ``num_workers``.

    Batch size and learning rate are multiplied by the ratio; iterations, steps, warm-up, and the
    periods of evaluation and checkpoints divided by it. REFERENCE_WORLD_SIZE 0 turns this off.

    Returns:
        the config itself if there is nothing to do, else a changed copy.

    Raises:
        AssertionError: IMS_PER_BATCH is no multiple of the reference world size.
    """
    old = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if old == 0 or old == num_workers:
        return cfg
    cfg = cfg.clone()
    frozen = cfg.is_frozen()
    cfg.defrost()
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH % old != 0:
        raise AssertionError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} is no multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE {old}"
        )
    scale = num_workers / old
    solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
    solver.BASE_LR *= scale
    solver.MAX_ITER = round(solver.MAX_ITER / scale)
    solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / scale)
    solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
    solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / scale)
    solver.REFERENCE_WORLD_SIZE = num_workers  # so that scaling again does nothing
    logging.getLogger(__name__).info(
        "Config scaled from %d to %d processes: batch_size=%d, learning_rate=%g, max_iter=%d, "
        "warmup=%d.",
        old,
        num_workers,
        solver.IMS_PER_BATCH,
        solver.BASE_LR,
        solver.MAX_ITER,
        solver.WARMUP_ITERS,
    )
    if frozen:
        cfg.freeze()
    return cfg
