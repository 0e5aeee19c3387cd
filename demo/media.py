"""Images, videos and windows for the demo."""

import glob
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

# Codec and container by preference; the first that this OpenCV can write is taken.
CODECS = (("x264", ".mkv"), ("mp4v", ".mp4"))


def expand_inputs(inputs: list[str]) -> list[Path]:
    """The image files meant by names, folders (their images, sorted) and glob patterns.

    Raises:
        FileNotFoundError: an input matches nothing.
    """
    paths: list[Path] = []
    for item in inputs:
        path = Path(item).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if not found:
            raise FileNotFoundError(f"--input {item}: no image found")
        paths.extend(found)
    return paths


def show(title: str, image: np.ndarray, wait_ms: int = 0) -> bool:
    """Shows a BGR image in a window; False when the user pressed Esc.

    Raises:
        OSError: this OpenCV has no windows (headless build) or there is no display.
    """
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        cv2.imshow(title, np.ascontiguousarray(image))
    except cv2.error as error:
        raise OSError(
            "no window can be opened here (opencv-python-headless has none: pip install "
            "opencv-python, or give --output)"
        ) from error
    return cv2.waitKey(wait_ms) != 27  # Esc


class VideoFile:
    """Writes BGR frames to a video file, as a context manager.

    Args:
        output: file name, or a folder (then the name is that of ``source``): one that exists, or
            a name without a suffix. Missing folders are made.
        source: name of the video that is drawn on.
        like: the open video whose size and frame rate are taken over.

    Raises:
        FileExistsError: the file is there already.
        OSError: OpenCV cannot write it.
    """

    def __init__(self, output: str, source: str, like: cv2.VideoCapture):
        size = (
            int(like.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(like.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        rate = like.get(cv2.CAP_PROP_FPS) or 25.0  # some containers carry no rate
        self.path, self._writer = self._open(Path(output), Path(source).stem, rate, size)

    @staticmethod
    def _open(output: Path, stem: str, rate: float, size: tuple[int, int]):
        (output if not output.suffix else output.parent).mkdir(parents=True, exist_ok=True)
        for codec, suffix in CODECS:
            path = output / f"{stem}{suffix}" if output.is_dir() else output
            if path.exists():
                raise FileExistsError(f"--output {path} exists; remove it or choose another name")
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
            if writer.isOpened():
                return path, writer
            path.unlink(missing_ok=True)
        raise OSError(
            f"--output {path}: this OpenCV can write neither x264 nor mp4v video there; the name "
            "should end in .mp4 or .mkv"
        )

    def write(self, frame: np.ndarray) -> None:
        """Appends one uint8 BGR frame."""
        self._writer.write(frame)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *exc_info) -> None:
        self._writer.release()
