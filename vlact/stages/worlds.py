"""Stage `worlds`: both rendered corpora."""

from vlact import jobs, schema
from vlact.params import Params
from vlact.stages import finish, must_run, stage_key


def worlds(p: Params, must_exist: bool = False) -> None:
    """Render both corpora to `data/<workspace>/worlds/{tutorial,ata}`: mp4 files and annotations.csv.

    With `world.source: folder` nothing is rendered: the same two folders must hold real data.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "worlds"
    if p.world.source == "folder":
        for name in ("tutorial", "ata"):
            if not (folder / name / "annotations.csv").is_file():
                raise FileNotFoundError(
                    f"{folder / name / 'annotations.csv'}: profile {p.profile!r} reads real data; expected a csv with columns "
                    f"{', '.join(schema.ANNOTATION)} and the videos beside it, found none"
                )
        return
    if not must_run(p, "worlds", folder, must_exist):
        return
    from vlact.worlds import corpus

    w, work = p.world, p.scratch / "worlds" / stage_key(p, "worlds")
    sets = {
        "tutorial": (corpus.tutorials(w.tutorial_videos, w.tutorial_steps, w.seed), w.tutorial_step_s),
        "ata": (corpus.ata(w.ata_people, w.ata_repeats, w.ata_steps, w.seed), w.ata_step_s),
    }
    for name, (recordings, mean_s) in sets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        todo = [(r, str(folder / name), str(work / name), w.size, w.fps, mean_s) for r in recordings]
        rows = sum(jobs.run(corpus.film_job, todo, p.workers, f"rendering {name}"), [])
        corpus.write_table(folder / name / "annotations.csv", rows)
    finish(p, "worlds", folder)
