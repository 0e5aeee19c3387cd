#!/usr/bin/env python
"""Trains and evaluates Mask2Former.

    python train_net.py --num-gpus 8 --config-file CONFIG [KEY VALUE ...]
    python train_net.py --eval-only --config-file CONFIG MODEL.WEIGHTS FILE
    torchrun --nproc_per_node 2 train_net.py --config-file CONFIG

Without a GPU, or with ``--num-gpus 0``, everything runs on the CPU.
"""

import argparse

from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from mask2former.engine import Checkpointer, Trainer, run, setup
from mask2former.modeling.fast_inference import prepare_for_inference


def main(args: argparse.Namespace) -> dict | None:
    """One process of a run: evaluation with ``--eval-only``, else training."""
    cfg = setup(args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()

    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, strict=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    prepare_for_inference(model, cfg)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    print("Command Line Args:", args)
    run(main, args)
