# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Pictures of an episode, drawn afterwards by sending its commands through the simulator again.

The simulator is deterministic: the same seed and the same command at each step give the same
motion, so an episode itself needs to render nothing but what the policy sees. Over ROS a command
may be taken one step earlier or later than the record says; whether the replay ends as the episode
did is therefore checked and told.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.episode import EpisodeResult

Picture = NDArray[np.uint8]
FRAME_RATE = 25.0
_CAPTION_HEIGHT = 28
_GAP = 4  # pixels between two films


@dataclass(frozen=True)
class Footage:
    """What was drawn of one episode.

    Attributes:
        frames: (H, W, 3) pictures from the side, evenly spaced in time.
        rate: frames a second of simulated time.
        strip: (time in s, camera name to picture) at a few instants.
        success: whether the episode succeeded this time too.
    """

    frames: list[Picture]
    rate: float
    strip: list[tuple[float, dict[str, Picture]]]
    success: bool


def replay(
    episode: EpisodeResult,
    rate: float = 25.0,
    settle: float = 0.0,
    size: tuple[int, int] = (360, 480),
    instants: int = 6,
    strip_size: int = 160,
    task: str = 'pick_place',
) -> Footage:
    """Run the commands of an episode again and draw it.

    Args:
        episode: whose trace is replayed.
        rate: rows of the trace a second.
        settle: seconds that the scene rested in its start pose before the first row.
        size: height and width of the frames, pixels.
        instants: how many times the robot's own cameras are drawn, from first to last step.
        strip_size: height and width of those pictures, pixels.
        task: name of the task.

    Raises:
        HbvlaError: the episode has no steps, or there is no renderer.
    """
    from hbvla_ros.sim.scene import CAMERAS, VIDEO_CAMERA
    from hbvla_ros.sim.simulation import AlohaSimulation

    steps = len(episode.trace)
    if not steps:
        raise HbvlaError(f'seed {episode.seed}: the episode has no commands to replay')
    every = max(1, round(rate / FRAME_RATE))
    shown = set(np.linspace(0, steps - 1, instants).round().astype(int).tolist())
    simulation = AlohaSimulation(strip_size, rate)
    simulation.reset(episode.seed, task)
    simulation.command(simulation.joint_positions())
    for _ in range(round(settle * rate)):
        simulation.step()
    frames, strip = [], []
    try:
        for step, command in enumerate(episode.trace.commands):
            if step % every == 0:
                frames.append(simulation.render(size, (VIDEO_CAMERA,))[VIDEO_CAMERA])
            if step in shown:
                strip.append((episode.trace.times[step], simulation.render(cameras=CAMERAS)))
            simulation.command(command)
            simulation.step()
        success = simulation.success()
    finally:
        simulation.close()
    return Footage(frames, rate / every, strip, success)


def side_by_side(footages: Sequence[Footage], captions: Sequence[str]) -> Iterator[Picture]:
    """Frames of several episodes next to each other, each under its caption.

    An episode that is over keeps its last frame.
    """
    count = max(len(footage.frames) for footage in footages)
    banners = [
        _banner(caption, footage.frames[0].shape[1])
        for caption, footage in zip(captions, footages, strict=True)
    ]
    for index in range(count):
        columns: list[Picture] = []
        for banner, footage in zip(banners, footages, strict=True):
            frame = footage.frames[min(index, len(footage.frames) - 1)]
            if columns:
                columns.append(np.full((len(banner) + len(frame), _GAP, 3), 32, dtype=np.uint8))
            columns.append(np.concatenate([banner, frame]))
        yield np.concatenate(columns, axis=1)


def strip_picture(footage: Footage, gap: int = 4) -> Picture:
    """The robot's cameras, one row a camera, time from left to right."""
    rows = []
    for name in footage.strip[0][1]:
        pictures = [pictures[name] for _, pictures in footage.strip]
        padded = [np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=128)
                  for picture in pictures]  # fmt: skip
        rows.append(np.concatenate(padded, axis=1)[:, :-gap])
    return np.concatenate(rows)[:-gap]


def jpeg(picture: Picture, quality: int = 88) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, 'JPEG', quality=quality, optimize=True)
    return buffer.getvalue()


def write_video(frames: Iterator[Picture], rate: float, path: Path) -> Path:
    """Encode H.264 frames of one even size as MP4, under a temporary name first.

    Args:
        frames: uint8 (H, W, 3) pictures, both sides even.
        rate: frames a second.
        path: the file.

    Raises:
        HbvlaError: no encoder, or it failed.
    """
    try:
        import imageio.v2 as imageio
    except ImportError:
        raise HbvlaError("no video encoder: pip install 'imageio[ffmpeg]'") from None

    temporary = path.with_name(f'.{path.stem}.tmp.mp4')
    try:
        with imageio.get_writer(
            str(temporary),
            format='FFMPEG',
            mode='I',
            fps=rate,
            codec='libx264',
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level='error',
            output_params=['-crf', '27', '-preset', 'fast', '-movflags', '+faststart'],
        ) as writer:
            for frame in frames:
                writer.append_data(frame)  # type: ignore[attr-defined]
        os.replace(temporary, path)
    except (OSError, ImportError) as error:
        raise HbvlaError(f'{path}: the video encoder failed: {error}') from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _banner(text: str, width: int) -> Picture:
    """White text on a dark band of the given width."""
    band = Image.new('RGB', (width, _CAPTION_HEIGHT), (32, 34, 38))
    ImageDraw.Draw(band).text(
        (10, _CAPTION_HEIGHT // 2), text, (240, 240, 240), _font(), anchor='lm'
    )
    return np.asarray(band)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A scalable font: matplotlib ships one, the system may have none."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), 14)
