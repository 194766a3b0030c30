"""A user's own videos through zero-shot, fine-tuning and the SRT: real files, with bad ones among
them.
"""

from pathlib import Path

import pytest

from vlact import params
from vlact.metrics.classification import srt
from vlact.stages.own import own_clips

REAL = Path(__file__).parents[2] / "shared/realdata/video_clips"
ROWS = """path,start_s,end_s,label,split
decord_flipping_a_pancake.mkv,0,2,flip pancake,train
decord_flipping_a_pancake.mkv,2,4,flip pancake,train
decord_flipping_a_pancake.mkv,8,10,flip pancake,test
mmaction2_demo_armwrestling.mp4,0,2,wrestle arm,train
mmaction2_demo_armwrestling.mp4,2,4.5,wrestle arm,train
mmaction2_demo_armwrestling.mp4,7,9,wrestle arm,test
mmaction2_test.mp4,0,3,show clip,test
mmaction2_test.mp4,3,6,show clip,test
video_0.mov,0,0.1,blink screen,test
corrupted.mp4,2,4.9,flip pancake,train
missing.mp4,0,1,flip pancake,train
mmaction2_test.mp4,9,12.5,show clip,test
"""


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside the project")
def test_real_videos_go_through_with_bad_ones_listed(tmp_path):
    csv = tmp_path / "mine.csv"
    csv.write_text(ROWS, encoding="utf-8")
    p = params.load("smoke", "scratch")  # shares its pretrained encoders with the notebooks
    with pytest.raises(ValueError, match=r"mine.csv, line 11: .*corrupted.mp4.*\(and 2 more rows"):
        own_clips(p, REAL, csv, None, 0.01, 1)
    task, predictions, found = own_clips(p, REAL, csv, None, 0.01, 2, skip_bad=True)
    assert [line.split(": ")[0].rsplit(", ")[1] for line in found.skipped] == [
        "line 11",
        "line 12",
        "line 13",
    ]
    assert "ends after the file (10.000 s)" in found.skipped[2]
    assert task.base == (("flip", "pancake"), ("wrestle", "arm")) and task.novel == (
        ("show", "clip"),
        ("blink", "screen"),
    )
    assert set(predictions["model"]) == {"zero-shot", "ProcVLR", "ACE", "ACE slow, halfway"}
    ace = predictions[
        (predictions["model"] == "ACE")
        & (predictions["split"] == "test")
        & (predictions["seed"] == 0)
    ]
    assert (
        len(ace[ace["mode"] == "base"]) == 2 and ace[ace["mode"] == "novel"]["clip"].nunique() == 3
    )
    assert 0 <= srt(ace[ace["mode"] == "novel"])["srt_acc_mean"] <= 1
