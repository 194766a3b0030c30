"""Video files to frames and back: the one room that knows containers, codecs and clocks.

`index` says which frames a file shows and when, `decode` gives them, `clips` gives those of an
annotation table, `encode` writes files. A time is always what a player's clock shows: seconds since
the start of the file, so a picture that begins after the sound keeps its gap.
"""

from vlact.video.decode import read, stream
from vlact.video.encode import CONTAINERS, write
from vlact.video.index import VideoError, VideoInfo, VideoWarning, probe
from vlact.video.sampling import ENDINGS, clip_times, files, nearest_frames

__all__ = [
    "CONTAINERS",
    "ENDINGS",
    "VideoError",
    "VideoInfo",
    "VideoWarning",
    "clip_times",
    "files",
    "nearest_frames",
    "probe",
    "read",
    "stream",
    "write",
]
