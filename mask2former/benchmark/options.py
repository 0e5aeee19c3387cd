"""Options that the subcommands about whole networks share."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")


def add_network_options(
    parser: argparse.ArgumentParser,
    *,
    rounds: int,
    size: tuple[int, int] = (512, 683),
    peers: tuple[str, ...] = ("transformers", "reference", "none"),
) -> None:
    """Config, size, peer, precision, threads, rounds."""
    add = parser.add_argument
    add("--config-file", metavar="FILE", required=True, help="of the model")
    add("--peer", choices=peers, default=peers[0], help="compared with (%(default)s)")
    add("--size", type=positive, nargs=2, metavar=("H", "W"), default=size, help="of the image")
    add("--dtype", choices=DTYPES, default="float32", help="float32, or the type of autocast")
    add("--device", default="cpu", help="cpu or cuda (cpu)")
    add("--threads", type=positive, default=min(2, os.cpu_count() or 1), help="of torch (2)")
    add("--rounds", type=positive, default=rounds, help="rounds that count (%(default)s)")
    add("--images", type=positive, default=1, help="in a batch (%(default)s)")
    add("--memory", action="store_true", help="peak memory too, each in a process of its own")
    add("--compile", action="store_true", help="torch.compile our network (not the peer's)")
    add("opts", nargs="*", metavar="KEY VALUE", help="config overrides")


def setting_of(args: argparse.Namespace, output: tuple[int, int]) -> tuple[Any, dict]:
    """The setting, and the facts about the machine, which are printed; fixes the threads."""
    import torch

    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks.setting import Setting

    torch.set_num_threads(args.threads)
    facts = describe()
    print(headline(facts))
    setting = Setting(
        config_file=args.config_file,
        opts=tuple(args.opts),
        size=tuple(args.size),
        output=tuple(output),
        dtype=args.dtype,
        device=args.device,
        threads=args.threads,
        images=args.images,
        compiled=args.compile,
    )
    height, width = setting.size
    name = os.path.basename(args.config_file)
    print(f"{name}, {setting.images} x {height}x{width}, {setting.dtype}, {setting.device}")
    return setting, facts


def shielded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Ends with 1 and one line where results differ, with 2 and one line for users' mistakes."""

    @functools.wraps(run)
    def wrapped(args: argparse.Namespace) -> int:
        from mask2former.benchmark.networks.parity import ParityError
        from mask2former.engine.errors import USER_ERRORS

        try:
            return run(args)
        except ParityError as error:
            print(f"NOT EQUAL, not timed: {error}", file=sys.stderr)
            return 1
        except USER_ERRORS as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return wrapped


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
