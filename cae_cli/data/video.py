"""Films to the pixels of their frames, decoded by FFmpeg as PyAV brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.medical import Refused
from cae_cli.errors import UserError

EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
MOST_PIXELS = 178_956_970  # of a frame, as of Pillow's images
START = 16  # bytes that tell films from other files
_MARKS = {  # of a format of FFmpeg, by where it stands in a file
    "mov": (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    "avi": (8, (b"AVI ",)),
    "matroska": (0, (b"\x1aE\xdf\xa3",)),
}
# Brands of images that are kept as films are: HEIC, AVIF.
_IMAGES = b"avif avis heic heix heim heis hevc hevx mif1 msf1".split()


def opened(content: IO[bytes]) -> Film | None:
    """The file as a film; None if it is none. The content is then at its begin."""
    start = content.read(START)
    content.seek(0)
    for name, (at, marks) in _MARKS.items():
        if start[at : at + 4] in marks and start[8:12] not in _IMAGES:
            return Film(content, name)
    return None


class Film:
    """The first moving picture of a file.

    Attributes:
        frames: how many it says to have; one that does not say so is counted.
        pixels: of a frame.

    Raises:
        Refused: it holds none, or one in a way that is not known.
        UserError: PyAV is not installed.
    """

    def __init__(self, content: IO[bytes], name: str) -> None:
        try:
            import av
        except ImportError as error:
            raise UserError(
                "reading films needs av, which is not installed", hint="pip install 'cae-cli[video]'"
            ) from error

        # The format is that of the content and opens nothing else: playlists name other files.
        options = {"protocol_whitelist": "", "enable_drefs": "0"}
        self._container: Any = av.open(content, format=name, options=options)
        streams = self._container.streams.video
        if not streams or streams[0].codec_context is None:
            raise Refused("a film without pictures that can be decoded")
        self._stream = streams[0]
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MOST_PIXELS)}  # frames may be larger than the first one
        self.pixels = int(context.width) * int(context.height)
        self.frames = int(self._stream.frames) or self._counted()

    def _counted(self) -> int:
        count = sum(1 for packet in self._container.demux(self._stream) if packet.size)
        self._container.seek(0)
        return count

    def read(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """The first frames, upright, (h, w, 3); fewer if there are fewer."""
        for i, frame in enumerate(self._container.decode(self._stream)):
            # A telephone held upright writes lying frames, and by what angle they are to be turned.
            yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            if i + 1 == count:
                return
