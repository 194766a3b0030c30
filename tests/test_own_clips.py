"""A user's own videos through zero-shot, fine-tuning and the SRT, with bad ones among them."""

import numpy as np
import pytest

from vlact import params, video
from vlact.metrics.classification import srt
from vlact.stages.own import own_clips

FPS = 8
ROWS = """path,start_s,end_s,label,split
pancake.mkv,0,2,flip pancake,train
pancake.mkv,2,4,flip pancake,train
pancake.mkv,8,10,flip pancake,test
arms.mp4,0,2,wrestle arm,train
arms.mp4,2,4.5,wrestle arm,train
arms.mp4,7,9,wrestle arm,test
show.mp4,0,3,show clip,test
show.mp4,3,6,show clip,test
blink.mov,0,0.1,blink screen,test
cut off.mp4,2,4.9,flip pancake,train
missing.mp4,0,1,flip pancake,train
show.mp4,9,12.5,show clip,test
"""


@pytest.fixture
def recordings(tmp_path):
    """Ten seconds of a block that rises, moves right or turns red, in three containers; a moment
    of a fourth; and a file that ends in the middle.
    """
    time = np.arange(10 * FPS)
    for name, x, y, red in (
        ("pancake.mkv", 0 * time, time % 40, 0 * time),
        ("arms.mp4", time % 40, 0 * time, 0 * time),
        ("show.mp4", 0 * time, 0 * time, 2 * time),
        ("blink.mov", 0 * time[:2], 0 * time[:2], 200 * time[:2]),
    ):
        frames = np.full((len(x), 64, 64, 3), 40, np.uint8)
        for frame, column, row, colour in zip(frames, x, y, red, strict=True):
            frame[row : row + 20, column : column + 20] = (colour, 180, 90)
        video.write(tmp_path / name, frames, FPS)
    whole = (tmp_path / "arms.mp4").read_bytes()
    (tmp_path / "cut off.mp4").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_videos_go_through_with_bad_ones_listed(recordings):
    csv = recordings / "mine.csv"
    csv.write_text(ROWS, encoding="utf-8")
    p = params.load("smoke", "scratch")  # shares its pretrained encoders with the notebooks
    with pytest.raises(ValueError, match=r"mine.csv, line 11: .*cut off.mp4.*\(and 2 more rows"):
        own_clips(p, recordings, csv, None, 0.01, 1)
    task, predictions, found = own_clips(p, recordings, csv, None, 0.01, 2, skip_bad=True)
    assert [line.split(": ")[0].rsplit(", ")[1] for line in found.skipped] == [
        "line 11",
        "line 12",
        "line 13",
    ]
    assert "ends after the file (10.000 s)" in found.skipped[2]
    assert task.base == (("flip", "pancake"), ("wrestle", "arm"))
    assert task.novel == (("show", "clip"), ("blink", "screen"))
    assert set(predictions["model"]) == {"zero-shot", "ProcVLR", "ACE", "ACE slow, halfway"}
    ace = predictions[
        (predictions["model"] == "ACE")
        & (predictions["split"] == "test")
        & (predictions["seed"] == 0)
    ]
    novel = ace[ace["mode"] == "novel"]
    assert len(ace[ace["mode"] == "base"]) == 2 and novel["clip"].nunique() == 3
    assert 0 <= srt(novel)["srt_acc_mean"] <= 1
