"""The page: an image, three controls, and what the model sees."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from mask2former.inference.annotation.drawing import OPACITY

from .results import TABLE_HEAD
from .segmenter import Segmenter

_CSS = """
.summary { font-weight: 600; margin-bottom: 0.4em }
.item { display: inline-block; margin: 0 1.2em 0.3em 0; white-space: nowrap }
"""
_FORGET_AFTER = 3600  # seconds that uploads and results are kept

# Fonts of the system: the page asks no other server for anything.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# What `launch` needs besides addresses.
LAUNCH = {"css": _CSS, "theme": THEME, "show_error": True}


def build_app(
    segmenter: Segmenter, *, examples: Sequence[Path] = (), threshold: float = 0.5
) -> gr.Blocks:
    """The page; ``launch(**LAUNCH)`` serves it.

    Args:
        segmenter: predicts.
        examples: images to pick from.
        threshold: where its slider stands at first.
    """

    def segment(upload: dict[str, Any] | None, task: str, threshold: float, opacity: float):
        if not upload:
            return [None, "", [], *(gr.update(value=None, interactive=False) for _ in range(3))]
        file = upload["path"]
        name = upload.get("orig_name") or Path(file).name
        try:
            result = segmenter.segment(file, task, float(threshold), name=name)
        except ValueError as error:
            raise gr.Error(str(error)) from error
        opacity = min(max(float(opacity), 0.0), 1.0)
        folder = Path(tempfile.mkdtemp(dir=_files_folder(app)))
        files = result.write_files(folder, opacity)
        downloads = [gr.update(value=path, interactive=True) for path in files]
        return [result.overlay(opacity), result.legend(), result.table(), *downloads]

    app = gr.Blocks(
        title="Mask2Former",
        analytics_enabled=False,
        delete_cache=(_FORGET_AFTER, _FORGET_AFTER),
    )
    with app:
        gr.Markdown(f"## Mask2Former\n{_escaped(segmenter.model_name)}")
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(
                    label="Image: drop one, or pick an example",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=320,
                    elem_id="input",
                )
                task = gr.Radio(segmenter.tasks, value=segmenter.tasks[0], label="Task")
                least = gr.Slider(
                    0.0, 1.0, threshold, step=0.05, label="Threshold",
                    info="least score of objects; semantic regions have none",
                )  # fmt: skip
                opacity = gr.Slider(0.0, 1.0, OPACITY, step=0.05, label="Opacity")
                if examples:
                    gr.Examples([str(p) for p in examples], image, label="Examples")
            with gr.Column(scale=3):
                overlay = gr.Image(
                    label="Segments",
                    format="png",
                    interactive=False,
                    height=560,
                    buttons=["fullscreen", "download"],
                    elem_id="overlay",
                )
                legend = gr.HTML(elem_id="legend")
                with gr.Row():
                    buttons = [
                        gr.DownloadButton(
                            f"Download {name}", interactive=False, elem_id=f"get-{suffix}"
                        )
                        for name, suffix in (("PNG", "png"), ("JSON", "json"), ("CVAT XML", "xml"))
                    ]
                table = gr.Dataframe(
                    headers=TABLE_HEAD,
                    datatype=["html", "str", "str", "str", "str"],
                    type="array",
                    interactive=False,
                    max_height=320,
                    label="Segments",
                    elem_id="segments",
                )
        inputs = [image, task, least, opacity]
        outputs = [overlay, legend, table, *buttons]
        # The file comes as it was uploaded: turning, converting and refusing it are ours.
        # Of several events in a row, only the last is worth the wait.
        common = {
            "fn": segment,
            "inputs": inputs,
            "outputs": outputs,
            "preprocess": False,
            "trigger_mode": "always_last",
        }
        image.change(**common, api_name="segment")
        for event in (task.change, least.release, opacity.release):
            event(**common, api_visibility="private")
    return app


def _files_folder(app: gr.Blocks) -> str:
    """Inside gradio's own cache: it may be served from there, and is cleaned up."""
    folder = Path(app.GRADIO_CACHE) / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "\\`*_{}[]<>#|" else c for c in text)
