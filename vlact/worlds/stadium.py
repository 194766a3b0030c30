"""The stadium: an articulated athlete performs the 20 actions of THUMOS14 in untrimmed recordings.

A pose is a set of joint angles, an action a list of beats: reach this pose within so many seconds,
moving, rising and turning on the way. Everything between actions is background: waiting, walking,
beginnings that are broken off before the last beat, and, where `Action.design` is "reversed", the
same beats backwards.

How hard a class is was set by design, before anything was trained on it: "own" classes have poses
that no other class has, "shared" ones have the poses that lead up to the deed in common with their
`twin`, "reversed" ones consist of poses that also occur in the opposite order, so that no single
pose tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from vlact.worlds.scene import Body, Camera, Part, Scene, Surface, Track

# Joint angles in degrees. Arms: 0 hangs, 90 points ahead, 180 up; `out` lifts to the side; legs: 0
# stands, 90 ahead.
JOINTS = (
    "lean",
    "twist",
    "pitch",
    "r_arm",
    "r_out",
    "r_elbow",
    "l_arm",
    "l_out",
    "l_elbow",
    "r_leg",
    "r_knee",
    "l_leg",
    "l_knee",
)
TORSO, UPPER_ARM, FOREARM, THIGH, SHANK, HEAD = 0.52, 0.28, 0.26, 0.4, 0.4, 0.13
GROUND = 0.06  # of a joint's centre over what it stands on


def pose(**angles: float) -> np.ndarray:
    """Joint angles (13,) of a standing body with the given changes; `arms`, `elbows`, `outs`,
    `legs`, `knees` set both sides.
    """
    values = {
        "r_arm": 6.0,
        "l_arm": 6.0,
        "r_elbow": 12.0,
        "l_elbow": 12.0,
        "r_out": 6.0,
        "l_out": 6.0,
    }
    for name, value in angles.items():
        for joint in (
            (f"r_{name[:-1]}", f"l_{name[:-1]}")
            if name in ("arms", "elbows", "outs", "legs", "knees")
            else (name,)
        ):
            if joint not in JOINTS:
                raise ValueError(
                    f"unknown joint {name!r}; expected some of {JOINTS}, arms, elbows, outs, "
                    "legs, knees"
                )
            values[joint] = value
    return np.array([values.get(j, 0.0) for j in JOINTS])


POSES: dict[str, np.ndarray] = {
    "stand": pose(),
    "rest": pose(arms=-12, elbows=50, outs=28, lean=4),
    "stride left": pose(lean=6, l_leg=28, r_leg=-22, r_arm=28, l_arm=-24),
    "stride right": pose(lean=6, r_leg=28, l_leg=-22, l_arm=28, r_arm=-24),
    "run left": pose(lean=16, l_leg=62, l_knee=70, r_leg=-30, r_knee=20, r_arm=48, l_arm=-40,
                     elbows=85),
    "run right": pose(lean=16, r_leg=62, r_knee=70, l_leg=-30, l_knee=20, l_arm=48, r_arm=-40,
                      elbows=85),
    "crouch": pose(lean=40, legs=72, knees=115, arms=-35),
    "wind up": pose(lean=-8, l_leg=95, l_knee=95, arms=80, elbows=95),
    "cock": pose(lean=-14, twist=-35, r_arm=-55, r_out=50, r_elbow=70, l_arm=85, l_leg=38,
                 r_leg=-14, r_knee=22),
    "over the top": pose(lean=18, twist=25, r_arm=165, r_elbow=8, l_arm=-20, l_leg=30, r_leg=-26),
    "thrown": pose(lean=44, twist=35, r_arm=62, r_elbow=10, l_arm=-45, l_leg=38, l_knee=30,
                   r_leg=-42, r_knee=30),
    "sprint with spear": pose(lean=4, twist=-40, r_arm=-75, r_out=35, r_elbow=6, l_arm=60, l_leg=52,
                              l_knee=40, r_leg=-34),
    "leap": pose(lean=-6, r_arm=175, l_arm=120, l_leg=60, l_knee=70, r_leg=-12),
    "slam": pose(lean=32, arms=72, legs=25, knees=45),
    "spike": pose(lean=28, twist=30, r_arm=60, l_arm=-30, legs=-14, knees=60),
    "squat": pose(lean=52, legs=88, knees=122, arms=48, elbows=0),
    "rack": pose(lean=-4, arms=58, elbows=128, legs=14, knees=26),
    "overhead": pose(arms=178, elbows=0, l_leg=16, r_leg=-12),
    "edge": pose(arms=90, elbows=0),
    "push off": pose(lean=22, arms=150, legs=30, knees=55),
    "tuck": pose(lean=62, legs=118, knees=132, arms=70, elbows=40, pitch=-180),
    "entry": pose(arms=178, elbows=0, outs=2, pitch=-180),
    "address": pose(lean=36, arms=34, elbows=0, outs=0, knees=18, legs=12),
    "swing back": pose(lean=24, twist=-75, arms=110, elbows=35, outs=0, knees=16, legs=8),
    "swing through": pose(lean=30, twist=28, arms=48, elbows=0, outs=0, l_leg=16, r_leg=-6),
    "finish high": pose(lean=-6, twist=95, arms=150, elbows=45, outs=0, r_leg=-16, r_knee=28),
    "block": pose(lean=34, twist=4, arms=38, elbows=0, l_leg=62, l_knee=52, r_leg=-32),
    "guard": pose(lean=22, arms=52, elbows=55, legs=22, knees=42),
    "forehand back": pose(lean=8, twist=-70, r_arm=10, r_out=72, r_elbow=10, l_arm=70, legs=20,
                          knees=38),
    "forehand through": pose(lean=10, twist=55, r_arm=95, r_out=22, r_elbow=25, l_arm=20, l_leg=24,
                             r_leg=-14),
    "racket high": pose(lean=2, twist=85, r_arm=150, r_out=0, r_elbow=70, l_arm=30, l_leg=16),
    "wheel": pose(lean=10, arms=78, elbows=0, outs=0, legs=20, knees=40),
    "wheel out": pose(lean=-18, arms=140, elbows=0, outs=0, legs=10, knees=16),
    "discus wind": pose(lean=18, twist=-95, r_arm=5, r_out=78, r_elbow=0, l_arm=60, l_out=30,
                        legs=26, knees=52),
    "discus out": pose(lean=-6, twist=75, r_arm=60, r_out=62, r_elbow=0, l_arm=-20, l_out=50,
                       l_leg=14, r_leg=-18),
    "back arch": pose(lean=-42, arms=-20, outs=40, legs=-35, knees=60, pitch=85),
    "long flight": pose(lean=26, arms=130, legs=72, knees=14),
    "sit in sand": pose(lean=46, arms=70, legs=100, knees=40),
    "carry pole": pose(lean=6, arms=38, elbows=70, l_leg=58, l_knee=60, r_leg=-28, r_knee=20),
    "plant": pose(lean=-6, arms=165, elbows=10, l_leg=58, l_knee=80, r_leg=-14),
    "upside down": pose(arms=20, elbows=10, legs=12, pitch=165),
    "fall on back": pose(lean=14, arms=110, outs=40, legs=60, knees=50, pitch=75),
    "shot at neck": pose(lean=16, twist=-45, r_arm=42, r_out=40, r_elbow=140, l_arm=60, r_leg=26,
                         r_knee=62, l_leg=-20, l_knee=12),
    "arm out": pose(lean=12, twist=30, r_arm=112, r_out=6, r_elbow=0, l_arm=-15, l_leg=26,
                    l_knee=16, r_leg=-28),
    "bend over table": pose(lean=66, r_arm=-30, r_elbow=75, l_arm=72, l_elbow=0, l_leg=22,
                            r_leg=-12),
    "cue forward": pose(lean=70, r_arm=42, r_elbow=20, l_arm=72, l_elbow=0, l_leg=24, r_leg=-14),
    "kick back": pose(lean=-6, r_leg=-52, r_knee=85, l_leg=16, l_arm=55, r_arm=-40, outs=30),
    "kick": pose(lean=-16, r_leg=82, r_knee=6, l_leg=-4, r_arm=50, l_arm=-50, outs=34),
}  # fmt: skip


@dataclass(frozen=True)
class Beat:
    """Reach a pose in `s` seconds while moving by `go` ahead, to height `up`, turning by `turn`
    degrees about the vertical.
    """

    pose: str
    s: float
    go: float = 0.0
    up: float = 0.0
    turn: float = 0.0

    def __post_init__(self):
        if self.pose not in POSES:
            raise ValueError(f"unknown pose {self.pose!r}; expected one of {sorted(POSES)}")


def beats(text: str) -> tuple[Beat, ...]:
    """Beats written as `pose seconds +go ^up @turn`, separated by commas; `run*3` is three strides.

    >>> beats("crouch .2 +.3 ^.1")
    (Beat(pose='crouch', s=0.2, go=0.3, up=0.1, turn=0.0),)
    """
    out = []
    for item in text.split(","):
        words = item.split()
        if words[0].startswith("run*"):
            first, go = (words[1:] or ["run left"])[0].replace("_", " "), 0.55
            out += [Beat((first, "run right")[i % 2], 0.22, go) for i in range(int(words[0][4:]))]
            continue
        name = " ".join(w for w in words if w[0].isalpha())
        marks = {w[0]: float(w[1:]) for w in words if w[0] in "+^@"}
        seconds = next(float(w) for w in words if w[0] in ".0123456789")
        out.append(
            Beat(name, seconds, marks.get("+", 0.0), marks.get("^", 0.0), marks.get("@", 0.0))
        )
    return tuple(out)


@dataclass(frozen=True)
class Action:
    """One class.

    Attributes:
        beats: From the standing body; a performance is labelled from the first to the end of the
            last.
        prop: Key of `PROPS`, what the athlete holds; or "".
        release: Beat at whose start the prop flies off, or None.
        place: Key of `PLACES`, what stands about; or "".
        design: "own", "shared" or "reversed", see the module.
        twin: The class it shares poses with.
        stand: Height of what the athlete stands on at first.
    """

    beats: tuple[Beat, ...]
    prop: str = ""
    release: int | None = None
    place: str = ""
    design: str = "own"
    twin: str = ""
    stand: float = 0.0


ACTIONS: dict[str, Action] = {
    "BaseballPitch": Action(beats("wind up .6, cock .4 +.25, over the top .22 +.25, thrown .3 +.1"),
                            "ball", 3),
    "BasketballDunk": Action(
        beats("run*3, crouch .22 +.2, leap .3 +.4 ^.75, slam .28 +.15 ^.55, crouch .3 +.05"),
        "basketball", 6, "hoop",
        "shared", "VolleyballSpiking",
    ),
    "Billiards": Action(beats("bend over table .7, cue forward .25, cue forward .4"), "cue", None,
                        "table", "reversed"),
    "CleanAndJerk": Action(beats("squat .6, rack .5, rack .35, overhead .35, overhead .4"),
                           "barbell", design="reversed"),
    "CliffDiving": Action(
        beats("edge .5, push off .35 +.1 ^.1, tuck .48 +.35 ^1.4, entry .4 +.25 ^-1.25, "
              "entry .2 +.1 ^-2"),
        "", None, "cliff",
        "shared", "Diving", 1.5,
    ),
    "CricketBowling": Action(
        beats("run*4, leap .25 +.4 ^.35, over the top .22 +.3, thrown .3 +.2"), "ball", 6, "wicket",
        "shared", "JavelinThrow"
    ),
    "CricketShot": Action(beats("address .5, swing back .4, block .25 +.15, block .3"), "bat", None,
                          "wicket", "shared", "GolfSwing"),
    "Diving": Action(
        beats("edge .5, push off .35 +.1 ^.1, tuck .38 +.35 ^.9, entry .4 +.25 ^-.55, "
              "entry .2 +.1 ^-1.3"),
        "", None, "board",
        "shared", "CliffDiving", 0.8,
    ),
    "FrisbeeCatch": Action(beats("run*2, arm out .4 +.1, shot at neck .4"), "disc", None, "",
                           "reversed", "Shotput"),
    "GolfSwing": Action(beats("address .5, swing back .5, swing through .2, finish high .35"),
                        "bat", None, "", "shared", "CricketShot"),
    "HammerThrow": Action(beats("wheel .4, wheel .45 +.1 @360, wheel .45 +.1 @360, "
                                "wheel .45 +.1 @360, wheel out .3"),
                          "hammer", 4),
    "HighJump": Action(beats("run*4, leap .25 +.3 ^.4, back arch .35 +.45 ^.95, "
                             "fall on back .35 +.4 ^.2"),
                       "", None, "bar"),
    "JavelinThrow": Action(
        beats("run*4 sprint_with_spear, cock .3 +.35, over the top .22 +.3, thrown .3 +.2"),
        "javelin", 6, "",
        "shared", "CricketBowling",
    ),
    "LongJump": Action(beats("run*5, leap .22 +.45 ^.4, long flight .3 +.6 ^.45, "
                             "sit in sand .3 +.35"),
                       "", None, "sand"),
    "PoleVault": Action(
        beats("run*4 carry_pole, plant .25 +.3 ^.1, upside down .45 +.5 ^1.1, "
              "fall on back .5 +.6 ^.25"),
        "pole", 6, "high bar"
    ),
    "Shotput": Action(
        beats("shot at neck .5, shot at neck .3 +.25, arm out .3 +.15, arm out .35"), "shot", 3, "",
        "reversed", "FrisbeeCatch"
    ),
    "SoccerPenalty": Action(beats("run*3, kick back .25 +.3, kick .2 +.1, kick .25"), "football", 5,
                            "goal"),
    "TennisSwing": Action(beats("guard .3, forehand back .4, forehand through .2 +.15, "
                                "racket high .3"),
                          "racket", None, "net"),
    "ThrowDiscus": Action(beats("discus wind .5, discus wind .5 +.25 @360, discus out .25 @60, "
                                "discus out .3"),
                          "disc", 3),
    "VolleyballSpiking": Action(
        beats("run*3, crouch .22 +.2, leap .3 +.2 ^.7, spike .25 +.1 ^.5, crouch .3"), "", None,
        "tall net",
        "shared", "BasketballDunk",
    ),
}  # fmt: skip
WAITING = (Beat("rest", 0.5), Beat("rest", 0.9), Beat("stand", 0.5))
WALKING = tuple(Beat(f"stride {side}", 0.34, 0.28) for side in ("left", "right", "left", "right"))


PROPS = (
    "",
    "ball",
    "shot",
    "basketball",
    "disc",
    "cue",
    "bat",
    "racket",
    "barbell",
    "hammer",
    "javelin",
    "pole",
)


def neighbours() -> set[tuple[str, str]]:
    """Poses that follow each other in some class, in either order."""
    pairs = {
        (a.pose, b.pose)
        for action in ACTIONS.values()
        for a, b in zip(action.beats, action.beats[1:], strict=False)
    }
    return pairs | {(b, a) for a, b in pairs}


def drill(rng: np.random.Generator, prop: str) -> Action:
    """Two to four poses of the classes in an order that no class has, nor backwards: what the
    language model learns to read on.
    """
    pool: dict[str, tuple[Beat, ...]] = {}
    for action in ACTIONS.values():
        for beat in action.beats:
            pool.setdefault(
                beat.pose,
                (Beat(beat.pose, max(beat.s, 0.3), beat.go, max(beat.up, 0.0), beat.turn),),
            )
    pool["run left"] = beats("run*3")
    del pool["run right"]
    names, taken, chosen = list(pool), neighbours(), []
    for _ in range(rng.integers(2, 5)):
        free = [n for n in names if n not in chosen and not (chosen and (chosen[-1], n) in taken)]
        chosen.append(free[rng.integers(len(free))])
    return Action(tuple(b for n in chosen for b in pool[n]), prop)


# From poses to points in space
def skeleton(angles: np.ndarray) -> dict[str, np.ndarray]:
    """Points (T, 3) of a body that faces +x with its pelvis at the origin, from joint angles (T,
    13).

    Returns:
        `pelvis, neck, head` and, with r_ and l_, `shoulder, elbow, hand, hip, knee, foot`.
    """
    a = dict(zip(JOINTS, np.radians(angles).T, strict=True))
    zero = np.zeros(len(angles))
    spine = np.stack([np.sin(a["lean"]), np.cos(a["lean"]), zero], 1)
    out = {
        "pelvis": np.zeros((len(angles), 3)),
        "neck": TORSO * spine,
        "head": (TORSO + 0.2) * spine,
    }
    for side, sign in (("r", 1.0), ("l", -1.0)):
        across = np.stack([np.sin(a["twist"]), zero, np.cos(a["twist"])], 1)
        ahead = np.stack([np.cos(a["twist"]), zero, -np.sin(a["twist"])], 1)
        out[f"{side}_shoulder"] = out["neck"] - 0.05 * spine + sign * 0.18 * across
        at, raised = out[f"{side}_shoulder"], a[f"{side}_arm"]
        for joint, length, bend in (
            ("elbow", UPPER_ARM, 0.0),
            ("hand", FOREARM, a[f"{side}_elbow"]),
        ):
            swing, lift = raised + bend, a[f"{side}_out"]
            flat = np.sin(swing)[:, None] * ahead - np.stack([zero, np.cos(swing), zero], 1)
            at = at + length * (
                np.cos(lift)[:, None] * flat + sign * np.sin(lift)[:, None] * across
            )
            out[f"{side}_{joint}"] = at
        at = np.tile([0.0, 0.0, sign * 0.1], (len(angles), 1))
        out[f"{side}_hip"] = at
        for joint, length, bend in (("knee", THIGH, 0.0), ("foot", SHANK, a[f"{side}_knee"])):
            swing = a[f"{side}_leg"] - bend
            at = at + length * np.stack([np.sin(swing), -np.cos(swing), zero], 1)
            out[f"{side}_{joint}"] = at
    c, s = np.cos(a["pitch"]), np.sin(a["pitch"])
    for name, p in out.items():  # the whole body turns over about its pelvis; positive leans back
        out[name] = np.stack([c * p[:, 0] - s * p[:, 1], s * p[:, 0] + c * p[:, 1], p[:, 2]], 1)
    return out


LIMBS = (
    ("pelvis", "neck", 0.15, "shirt"), ("r_shoulder", "r_elbow", 0.075, "shirt"),
    ("l_shoulder", "l_elbow", 0.075, "shirt2"),
    ("r_elbow", "r_hand", 0.065, "skin"), ("l_elbow", "l_hand", 0.065, "skin"),
    ("r_hip", "r_knee", 0.1, "shorts"),
    ("l_hip", "l_knee", 0.1, "shorts2"), ("r_knee", "r_foot", 0.08, "skin"),
    ("l_knee", "l_foot", 0.08, "skin"),
)  # fmt: skip


def between(
    a: np.ndarray,
    b: np.ndarray,
    times: np.ndarray,
    parts: Callable[[float], list[Part]],
    overhang: float = 0.0,
) -> Body:
    """A body whose y axis runs from points a to points b (T, 3), made by `parts(half length)`."""
    d = b - a
    length = np.maximum(np.linalg.norm(d, axis=1), 1e-6)
    nod, heading = (
        np.degrees(np.arccos(np.clip(d[:, 1] / length, -1, 1))),
        np.degrees(np.arctan2(d[:, 0], d[:, 2])),
    )
    rot = np.stack([nod, heading, np.zeros(len(d))], 1)
    return Body(
        parts(float(length.mean()) / 2 + overhang),
        Track(np.c_[times, (a + b) / 2], False),
        Track(np.c_[times, rot], False),
    )


def at(
    points: np.ndarray, times: np.ndarray, parts: list[Part], rot: np.ndarray | None = None
) -> Body:
    """A body at points (T, 3)."""
    return Body(
        parts,
        Track(np.c_[times, points], False),
        Track.of(0, 0, 0) if rot is None else Track(np.c_[times, rot], False),
    )


@dataclass
class Take:
    """One athlete's time line while it is written: shots, each of which begins at the start place.

    Attributes:
        keys: Per shot, rows (t, x, up, yaw, 13 angles).
        poses: (start_s, end_s, pose): what is reached when.
        segments: (start_s, end_s, what, label): "action", "late" (without the first beat), "broken"
            (without the last beats), "reversed" or "drill".
        flights: (s, until_s): when the prop is out of the hand.
    """

    rng: np.random.Generator
    pace: float
    now: float = 0.0
    keys: list = field(default_factory=list)
    poses: list = field(default_factory=list)
    segments: list = field(default_factory=list)
    flights: list = field(default_factory=list)

    def cut(self) -> None:
        """A new shot: standing at the start place."""
        self.x, self.up, self.yaw = 0.0, 0.0, 0.0
        self.keys.append([])
        self.note("stand")

    def note(self, name: str) -> None:
        chance = self.rng.normal(0, 3, len(JOINTS)) * (np.array(JOINTS) != "pitch")
        self.keys[-1].append((self.now, self.x, self.up, self.yaw, *(POSES[name] + chance)))

    def play(self, beats) -> list[float]:
        """Beats at this athlete's pace; returns the time at which each starts, and the end."""
        times = [self.now]
        for beat in beats:
            self.now += beat.s * self.pace * self.rng.uniform(0.85, 1.15)
            self.x, self.up, self.yaw = self.x + beat.go, beat.up, self.yaw + beat.turn
            self.note(beat.pose)
            self.poses.append((times[-1], self.now, beat.pose))
            times.append(self.now)
        return times

    def to_start(self) -> None:
        """Stand up, face ahead and, after a run, walk back to the start place, all in the same
        shot.
        """
        self.play([Beat("stand", 0.5, turn=360 * round(self.yaw / 360) - self.yaw)])
        if (strides := round(self.x / 0.45)) > 0:
            go = -self.x / strides
            sides = ("left", "right") * strides
            self.play(
                [
                    Beat(f"stride {side}", 0.3, go, turn=180 * (i == 0))
                    for i, side in enumerate(sides[:strides])
                ]
            )
            self.play([Beat("stand", 0.4, turn=180)])

    def wait(self, walk: bool) -> None:
        """Background: stand about, or walk there and back."""
        self.play(WALKING if walk else WAITING)
        if walk:
            self.to_start()

    def act(self, label: str, action: Action, what: str = "action") -> None:
        """An event of a class, from the start place; one that runs backwards starts where the class
        ends.
        """
        self.play([Beat("stand", self.rng.uniform(0.2, 0.7))])
        if what in ("action", "drill"):
            times = self.play(action.beats)
            if action.release is not None:
                self.flights.append((times[action.release], times[-1] + 0.4))
        elif what == "broken":
            times = self.play(action.beats[: whole(action)])
        else:
            reached = sum(b.go for b in action.beats)
            self.x = reached
            self.keys[-1] = [(t, reached, *rest) for t, _, *rest in self.keys[-1]]
            goes = [0.0, *(-b.go for b in action.beats[:0:-1])]
            times = self.play(
                [
                    Beat(b.pose, b.s, g, b.up, -b.turn)
                    for b, g in zip(action.beats[::-1], goes, strict=True)
                ]
            )
        last = action.beats[-1]
        if what == "action":
            self.play([Beat(last.pose, self.rng.uniform(0.2, 0.5), up=last.up)])
        self.segments.append((times[0], times[-1], what, label))

    def late(self, label: str, action: Action) -> None:
        """A performance whose beginning the shot, which starts with it, has missed: it is labelled
        from the first frame on.
        """
        first, *rest = action.beats
        self.keys[-1], self.up = [], first.up
        self.note(first.pose)
        times = self.play(rest)
        self.play([Beat(rest[-1].pose, self.rng.uniform(0.2, 0.5), up=rest[-1].up)])
        self.segments.append((times[0], times[-1], "late", label))


def whole(action: Action) -> int:
    """How many beats a broken-off performance has: those before the deed, the last pose that occurs
    only once in a row.

    A landing in a pose that was there before (crouch, leap, slam, crouch) comes after the deed.
    """
    poses = [b.pose for b in action.beats]
    n = len(poses) - 1
    while n > 1 and (poses[n] in poses[: n - 1] or poses[n - 1] == poses[n]):
        n -= 1
    return n


def track(keys: list, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place, height, turn (T,) and angles (T, 13) at `times`: eased angles, even motion along the
    ground.
    """
    keys = np.asarray(keys)
    eased, even = Track(keys), Track(keys, ease=False)
    values, steady = eased(times), even(times)
    return steady[:, 0], values[:, 1], values[:, 2], values[:, 3:]


def place_body(keys: list, times: np.ndarray, stand: float) -> dict[str, np.ndarray]:
    """Points of the athlete in the world: the lowest point rests on the ground (or `stand`), raised
    by the height of the beats.
    """
    x, up, yaw, angles = track(keys, times)
    points = skeleton(angles)
    lowest = np.min([p[:, 1] for p in points.values()], axis=0)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    base = np.stack([x, GROUND + stand + up - lowest, np.zeros(len(times))], 1)
    return {
        k: base + np.stack([c * p[:, 0] + s * p[:, 2], p[:, 1], c * p[:, 2] - s * p[:, 0]], 1)
        for k, p in points.items()
    }


# Props and places
def stick(half: float, radius: float, colour) -> list[Part]:
    return [Part("capsule", (radius, half, radius), colour)]


def held(
    kind: str, points: dict[str, np.ndarray], times: np.ndarray, flights: list, end: float, colours
) -> list[Body]:
    """What the athlete holds, and how it flies once it has left the hand.

    Args:
        kind: Key of the branches below; "" is nothing.
        points: From `place_body`.
        times: (T,) seconds.
        flights: (s, until_s), when it is out of the hand.
        end: How far the action gets; a football lies there.
        colours: Two RGB triples.
    """
    c, c2 = colours
    right, left = points["r_hand"], points["l_hand"]
    fore = right - points["r_elbow"]
    fore = fore / np.maximum(np.linalg.norm(fore, axis=1, keepdims=True), 1e-6)
    middle = (right + left) / 2

    def thrown(where: np.ndarray, up: float = 1.6) -> np.ndarray:
        out = where.copy()
        for since, until in flights:
            gone = np.flatnonzero((times >= since) & (times < until))
            if len(gone):
                passed = (times[gone] - since)[:, None]
                out[gone] = where[gone[0]] + np.concatenate(
                    [4.5 * passed, up * (passed - passed**2), 0 * passed], 1
                )
        return out

    def along(origin: np.ndarray, direction: np.ndarray, back: float, ahead: float, parts) -> Body:
        return between(origin - back * direction, origin + ahead * direction, times, parts)

    steady = np.tile(np.array([1.0, 0.22, 0.0]) / np.hypot(1, 0.22), (len(times), 1))
    match kind:
        case "ball" | "shot" | "basketball":
            r = {"ball": 0.075, "shot": 0.1, "basketball": 0.17}[kind]
            return [
                at(
                    thrown(right + (r * 0.8) * fore),
                    times,
                    [Part("sphere", (r, r, r), c, pattern="half", colour2=c2)],
                )
            ]
        case "football":
            spot = np.tile([end + 0.25, 0.12, 0.1], (len(times), 1))
            return [
                at(
                    thrown(spot),
                    times,
                    [Part("sphere", (0.12, 0.12, 0.12), c, pattern="checker", colour2=c2)],
                )
            ]
        case "disc":
            return [
                at(
                    thrown(right + 0.1 * fore),
                    times,
                    [Part("cylinder", (0.2, 0.03, 0.2), c, pattern="sectors", colour2=c2)],
                )
            ]
        case "cue":
            line = left - right
            line = line / np.maximum(np.linalg.norm(line, axis=1, keepdims=True), 1e-6)
            return [along(right, line, 0.25, 1.15, lambda h: stick(h, 0.03, c))]
        case "bat":
            return [along(middle, fore, 0.0, 0.75, lambda h: stick(h, 0.05, c))]
        case "racket":
            disc = [
                Part("cylinder", (0.2, 0.02, 0.2), c2, rot=(90, 0, 0), pattern="checker", colour2=c)
            ]
            return [
                along(right, fore, 0.0, 0.4, lambda h: stick(h, 0.03, c)),
                at(right + 0.55 * fore, times, disc),
            ]
        case "barbell":
            plates = [
                Part("cylinder", (0.24, 0.04, 0.24), c2, (0, 0, z), (90, 0, 0), "sectors", c)
                for z in (-0.55, 0.55)
            ]
            return [
                at(middle, times, [Part("capsule", (0.03, 0.65, 0.03), c, rot=(90, 0, 0)), *plates])
            ]
        case "hammer":
            ball = [Part("sphere", (0.12, 0.12, 0.12), c, pattern="half", colour2=c2)]
            return [
                at(thrown(middle + 0.65 * fore), times, ball),
                along(middle, fore, 0.0, 0.6, lambda h: stick(h, 0.02, c2)),
            ]
        case "javelin":
            return [along(thrown(right), steady, 0.8, 0.8, lambda h: stick(h, 0.03, c))]
        case "pole":
            return [along(thrown(middle, -1.6), steady, 0.5, 1.3, lambda h: stick(h, 0.03, c))]
    return []


def installed(kind: str, end: float, stand: float, colours) -> list[Body]:
    """What stands about: `end` is how far the action gets, `stand` the height it starts from."""
    c, c2 = colours

    def still(parts: list[Part], x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Body:
        return Body(parts, Track.of(x, y, z))

    def posts(x: float, height: float, bar: float, half: float = 0.7) -> list[Body]:
        uprights = [
            Part("capsule", (0.03, height / 2, 0.03), c, (0, height / 2, z)) for z in (-half, half)
        ]
        return [
            still(
                [*uprights, Part("capsule", (0.025, half, 0.025), c2, (0, bar, 0), (90, 0, 0))], x
            )
        ]

    mat = still([Part("box", (0.7, 0.1, 0.8), c2, (0, 0.1, 0))], end - 0.1)
    match kind:
        case "cliff" | "board":
            grain = {"pattern": "checker", "colour2": c2} if kind == "cliff" else {}
            return [
                still([Part("box", (1.0, stand / 2, 0.6), c, (-0.8, stand / 2, 0), **grain)]),
                still([Part("box", (2.4, 0.02, 1.4), (0.25, 0.5, 0.8))], 2.6),
            ]
        case "hoop":
            ring = Part("torus", (0.24, 0.05, 0.24), (0.9, 0.4, 0.1), (0, 2.0, 0))
            return [
                still(
                    [
                        ring,
                        Part("box", (0.03, 0.3, 0.4), c, (0.3, 2.25, 0)),
                        Part("capsule", (0.05, 1.1, 0.05), c2, (0.45, 1.1, 0)),
                    ],
                    end + 0.25,
                )
            ]
        case "table":
            balls = [
                Part("sphere", (0.06, 0.06, 0.06), c, (x, 0.84, z))
                for x, z in ((-0.1, 0.1), (0.35, -0.2), (0.5, 0.2))
            ]
            return [
                still(
                    [
                        Part("box", (0.8, 0.06, 0.5), (0.1, 0.5, 0.25), (0, 0.72, 0)),
                        Part("box", (0.6, 0.34, 0.35), c2, (0, 0.34, 0)),
                        *balls,
                    ],
                    1.35,
                )
            ]
        case "wicket":
            return [
                still(
                    [Part("capsule", (0.03, 0.3, 0.03), c, (0, 0.3, z)) for z in (-0.12, 0, 0.12)],
                    -0.55,
                )
            ]
        case "bar":
            return [*posts(end - 0.75, 1.3, 0.95), mat]
        case "high bar":
            return [*posts(end - 0.8, 2.1, 1.5), mat]
        case "sand":
            return [still([Part("box", (1.1, 0.02, 0.6), (0.85, 0.75, 0.5), (0, 0.01, 0))], end)]
        case "goal":
            return posts(end + 1.5, 1.3, 1.3, 1.1)
        case "net" | "tall net":
            low, top = (0.1, 0.9) if kind == "net" else (1.2, 1.9)
            return [
                still(
                    [
                        Part(
                            "box",
                            (0.02, (top - low) / 2, 1.2),
                            c,
                            (0, (top + low) / 2, 0),
                            pattern="checker",
                            colour2=c2,
                        )
                    ],
                    end + 0.7,
                )
            ]
    return []


@dataclass(frozen=True)
class Look:
    """Everything about a recording that says nothing about the action."""

    colours: dict[str, tuple]
    floor: Surface
    wall: Surface
    wall_distance: float
    light: tuple
    ambient: float
    pace: float
    size: float  # of the body


def look(rng: np.random.Generator) -> Look:
    """Draw an athlete and a stadium."""

    def shade(low: float, high: float) -> tuple:
        return tuple(rng.uniform(low, high, 3))

    skin = np.array([0.93, 0.76, 0.62]) * rng.uniform(0.45, 1.0)
    shirt, shorts = np.array(shade(0.05, 0.95)), np.array(shade(0.05, 0.95))
    colours = {
        "skin": tuple(skin),
        "hair": tuple(skin * 0.4),
        "shirt": tuple(shirt),
        "shirt2": tuple(shirt * 0.7),
    }
    colours |= {"shorts": tuple(shorts), "shorts2": tuple(shorts * 0.7)}
    colours |= {
        "prop": shade(0.1, 0.95),
        "prop2": shade(0.1, 0.95),
        "place": shade(0.2, 0.9),
        "place2": shade(0.2, 0.9),
    }
    ground = np.array(
        [[0.25, 0.55, 0.25], [0.7, 0.35, 0.25], [0.75, 0.65, 0.45], [0.5, 0.5, 0.55]][
            rng.integers(4)
        ]
    ) * rng.uniform(0.7, 1.2)
    floor = Surface(
        tuple(ground.clip(0, 1)),
        tuple((ground * 0.75).clip(0, 1)),
        ("noise", "grain", "tiles")[rng.integers(3)],
        1.5,
        int(rng.integers(99)),
    )
    stand = np.array(shade(0.3, 0.9))
    wall = Surface(
        tuple(stand),
        tuple(stand * 0.6),
        ("noise", "tiles", "grain")[rng.integers(3)],
        1.2,
        int(rng.integers(99)),
    )
    light = (rng.uniform(-0.7, 0.7), 1.0, rng.uniform(0.2, 0.9))
    return Look(
        colours,
        floor,
        wall,
        rng.uniform(2.5, 5.0),
        light,
        rng.uniform(0.4, 0.6),
        rng.uniform(0.9, 1.15),
        rng.uniform(0.9, 1.1),
    )


def shoot(
    keys: list,
    action: Action,
    flights: list,
    seen: Look,
    times: np.ndarray,
    rng: np.random.Generator,
) -> Scene:
    """One shot as a scene: the athlete with prop and place of an action, and a camera of the shot's
    own.

    Args:
        keys: Of one shot of a `Take`.
        action: Whose prop and place.
        flights: Of the `Take`.
        seen: The recording's look.
        times: (T,) frames of the shot, seconds.
        rng: For the camera.
    """
    colour = seen.colours
    points = place_body(keys, times, action.stand)
    bodies = [
        between(
            points[a],
            points[b],
            times,
            lambda h, r=r, of=of: [
                Part("capsule", (r * seen.size, h + 0.5 * r, r * seen.size), colour[of])
            ],
        )
        for a, b, r, of in LIMBS
    ]
    bodies.append(
        at(
            points["head"],
            times,
            [
                Part(
                    "sphere",
                    (HEAD, HEAD * 1.15, HEAD),
                    colour["skin"],
                    pattern="half",
                    colour2=colour["hair"],
                )
            ],
        )
    )
    end = sum(b.go for b in action.beats)
    bodies += held(action.prop, points, times, flights, end, (colour["prop"], colour["prop2"]))
    bodies += installed(action.place, end, action.stand, (colour["place"], colour["place2"]))
    follows, far = rng.random() < 0.75, rng.uniform(4.2, 5.2)
    hips = points["pelvis"]
    if not follows:
        far = max(far, 1.1 * np.ptp(hips[:, 0]) + 3.4)
    level = 0.95 + 0.45 * action.stand + 0.6 * (hips[:, 1] - hips[0, 1]).clip(0)
    smooth, level = (
        np.convolve(
            np.pad(x if follows else np.full(len(times), x.mean()), 3, mode="edge"),
            np.ones(7) / 7,
            mode="valid",
        )
        for x in (hips[:, 0], level)
    )
    side, height = np.radians(rng.uniform(-32, 32)), rng.uniform(0.9, 2.2)
    eye = np.stack(
        [
            smooth + far * np.sin(side),
            np.full(len(times), height + 0.3 * action.stand),
            np.full(len(times), far * np.cos(side)),
        ],
        1,
    )
    target = np.stack([smooth, level, np.zeros(len(times))], 1)
    camera = Camera(
        Track(np.c_[times, eye], False), Track(np.c_[times, target], False), 30.0 + 6 * action.stand
    )
    return Scene(
        bodies, camera, seen.floor, seen.wall, seen.wall_distance, seen.light, seen.ambient
    )
