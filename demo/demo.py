#!/usr/bin/env python
"""Draws what a model sees: on images, folders, a video or the webcam, in a window or into files.

Run from the repository root or from demo/::

    python demo/demo.py --config-file CONFIG.yaml --input photo.jpg "more/*.png" folder/ \\
        --output drawn/ --opts MODEL.WEIGHTS model_final.pth
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import cv2
import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too
# Idle threads sleep, not spin: on cores that others use too, spinning made a tiny model 80 times
# slower. Is read when torch is loaded.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

from media import VideoFile, expand_inputs, show
from predictor import VisualizationDemo

import mask2former  # noqa: F401 - registers models and datasets
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.utils.logger import setup_logger
from mask2former.data.dataset_mappers.reading import depth_warning
from mask2former.engine.errors import USER_ERRORS, message_of
from mask2former.engine.setup import load_config

logger = logging.getLogger("detectron2")

WINDOW = "Mask2Former"


def get_parser() -> argparse.ArgumentParser:
    """The demo's command line; the published flags, plus --batch-size."""
    parser = argparse.ArgumentParser(
        description="Draw the predictions of a Mask2Former model.",
        epilog="examples:\n"
        "  python demo/demo.py --config-file C.yaml --input a.jpg b.jpg --output drawn/ "
        "--opts MODEL.WEIGHTS w.pth\n"
        "  python demo/demo.py --config-file C.yaml --video-input film.mp4 --output film_drawn.mkv "
        "--opts MODEL.WEIGHTS w.pth\n"
        "  python demo/demo.py --config-file C.yaml --webcam --opts MODEL.WEIGHTS w.pth",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        default="configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml",
        metavar="FILE",
        help="YAML config (default: %(default)s)",
    )
    parser.add_argument("--webcam", action="store_true", help="read camera 0; Esc quits")
    parser.add_argument("--video-input", metavar="FILE", help="a video file")
    parser.add_argument(
        "--input", nargs="+", metavar="PATH", help="images, folders of images, or glob patterns"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="folder for the drawings, or a file name for a single image or video; "
        "without it a window opens",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=None,
        metavar="P",
        help="leave out instances scored below P (default: 0.5). When given, panoptic segments "
        "are held to it too (otherwise to the config's OBJECT_MASK_THRESHOLD)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images of one size per forward"
    )
    parser.add_argument(
        "--opts",
        default=[],
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides; must come last",
    )
    return parser


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen config of the arguments.

    Raises:
        ConfigError: the file is missing, or a key or value is not possible.
    """
    cfg = load_config(args.config_file, args.opts, need_data=False)
    if args.confidence_threshold is not None:
        cfg.MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD = args.confidence_threshold
    cfg.freeze()
    return cfg


def run_on_images(demo: VisualizationDemo, args: argparse.Namespace) -> int:
    """Predicts on all input images; returns how many could not be read."""
    paths = expand_inputs(args.input)
    output = Path(args.output) if args.output else None
    into_folder = output is not None and (output.is_dir() or len(paths) > 1 or not output.suffix)
    if into_folder:
        output.mkdir(parents=True, exist_ok=True)
    unreadable = []
    with tqdm.tqdm(total=len(paths), unit="image", disable=output is None) as progress:
        for start in range(0, len(paths), args.batch_size):
            images = {}
            for path in paths[start : start + args.batch_size]:
                try:
                    images[path] = read_image(str(path), format="BGR")
                    if warning := depth_warning(str(path)):
                        logger.warning(warning)
                except (OSError, ValueError) as error:
                    unreadable.append(path)
                    logger.error("%s: left out, cannot be read: %s", path, error)
            began = time.perf_counter()
            results = demo.run_on_batch(list(images.values()))
            seconds = (time.perf_counter() - began) / max(len(images), 1)
            for path, (predictions, drawn) in zip(images, results):
                logger.info("%s: %s", path, _summary(predictions, demo, seconds))
                if output is None:
                    if not show(WINDOW, drawn.get_image()[:, :, ::-1]):
                        return len(unreadable)
                else:
                    drawn.save(str(output / path.name if into_folder else output))
            progress.update(args.batch_size if start + args.batch_size <= len(paths) else 1)
    if unreadable:
        names = ", ".join(map(str, unreadable))
        logger.error("%d of %d images could not be read: %s", len(unreadable), len(paths), names)
    return len(unreadable)


def _summary(predictions: dict, demo: VisualizationDemo, seconds: float) -> str:
    """The published words, of the instances that are drawn; and how many panoptic segments."""
    what = "finished"
    if "instances" in predictions:
        count = int((predictions["instances"].scores >= demo.confidence_threshold).sum())
        what = f"detected {count} instances"
    text = f"{what} in {seconds:.2f}s"
    if "panoptic_seg" in predictions:
        text += f", {len(predictions['panoptic_seg'][1])} panoptic segments drawn"
    return text


def run_on_camera(demo: VisualizationDemo) -> int:
    """Shows the webcam with predictions until Esc."""
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise OSError("camera 0 cannot be opened")
    frames = 0
    for frame in demo.run_on_video(camera):
        frames += 1
        if not show(WINDOW, frame, wait_ms=1):
            break
    camera.release()
    if not frames:
        raise OSError("camera 0 gives no picture; is another program using it?")
    return 0


def run_on_video(demo: VisualizationDemo, args: argparse.Namespace) -> int:
    """Draws every frame of a video, into a file or a window."""
    video = cv2.VideoCapture(args.video_input)
    if not video.isOpened():
        raise OSError(f"{args.video_input}: not a video that OpenCV can read")
    frames = demo.run_on_video(video, batch_size=args.batch_size)
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    if args.output is None:
        for frame in frames:
            if not show(Path(args.video_input).name, frame, wait_ms=1):
                break
        return 0
    with VideoFile(args.output, source=args.video_input, like=video) as writer:
        for frame in tqdm.tqdm(frames, total=total, unit="frame"):
            writer.write(frame)
    logger.info("wrote %s", writer.path)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    chosen = [name for name in ("input", "webcam", "video_input") if getattr(args, name)]
    if not chosen:
        parser.error("one of --input, --video-input and --webcam is needed")
    if args.webcam and (args.input or args.output):
        parser.error("--webcam goes with neither --input nor --output")
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    setup_logger(name="fvcore")
    setup_logger()
    logger.info("Arguments: %s", args)
    try:
        threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        demo = VisualizationDemo(setup_cfg(args), confidence_threshold=threshold)
        if args.input:
            return 1 if run_on_images(demo, args) else 0
        return run_on_camera(demo) if args.webcam else run_on_video(demo, args)
    except USER_ERRORS as error:
        print(f"demo.py: {message_of(error)}", file=sys.stderr)
        return 2
    except (OSError, KeyError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"demo.py: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
