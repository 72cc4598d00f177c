"""A model of intake, settling and generations against the real catalogue: random orders of arrival, duplicates, other
content, aborts, restarts, workers that are overtaken."""

import hashlib
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from dicomnode.reception.settle import SettleRule, decide
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.jobs import LIVE
from dicomnode.store.records import Instance

RULE = SettleRule(release_s=5.0, quiet_s=60.0)
_CT = "1.2.840.10008.5.1.4.1.1.2"
STUDIES = st.sampled_from(["1", "2"])


class Intake(RuleBasedStateMachine):
    """What the node promises, kept beside it in plain sets and compared after each step."""

    associations = Bundle("associations")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicomnode-model-"))
        self.now, self.run = 1000.0, 1
        self.catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}")
        self.acknowledged: dict[str, dict[str, str]] = defaultdict(dict)  # study -> image -> digest
        self.conflicts: set[tuple[str, str]] = set()
        self.generation: dict[str, int] = defaultdict(int)
        self.unsettled: set[str] = set()
        self.pacs: list[tuple[str, str]] = []  # (study, object UID) in the order of arrival

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            shutil.rmtree(self.folder)

    # The network

    @rule(target=associations)
    def connect(self) -> int:
        return self.catalog.begin_association(f"run {self.run}", "SCANNER", "NODE", "192.0.2.1", self.now)

    @rule(association=associations, study=STUDIES, image=st.integers(0, 5), content=st.sampled_from("aaab"))
    def receive(self, association: int, study: str, image: int, content: str) -> None:
        digest = hashlib.sha256(content.encode()).hexdigest()
        uid = f"1.{study}.{image}"
        instance = Instance(
            uid, _CT, study, f"{study}.1", f"/spool/{uid}", digest, 1, self.now, association, "p" * 64, "CT", "",
            "1\\0\\0\\0\\1\\0", float(image),
        )  # fmt: skip
        answer = self.catalog.record(instance)
        before = self.acknowledged[study].get(uid)
        if before is None:
            assert answer == "new"
            self.acknowledged[study][uid] = digest
            self.unsettled.add(study)
        elif before == digest:
            assert answer == "same"
        else:
            assert answer == "conflict"
            self.catalog.note_conflict(instance)
            self.conflicts.add((study, uid))

    @rule(association=associations, how=st.sampled_from(["released", "aborted"]))
    def disconnect(self, association: int, how: str) -> None:
        self.catalog.end_association(association, how, self.now)  # type: ignore[arg-type]

    @rule()
    def restart(self) -> None:
        """The receiver is killed: its open associations are lost, the catalogue is opened anew."""
        self.run += 1
        self.catalog.close()
        self.catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}")
        self.catalog.lose_associations(self.catalog.dead_receivers(lambda run: run == f"run {self.run}"), self.now)

    # The clock

    @rule(seconds=st.sampled_from([0.5, 4.0, 6.0, 61.0, -30.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        unsettled = self.catalog.unsettled(self.now)
        assert {s.study_uid for s in unsettled} == self.unsettled
        for study in unsettled:
            if decide(study, self.now, RULE).settled:
                settled = self.catalog.settle(study.study_uid, self.now, held=None)
                self.generation[study.study_uid] += 1
                self.unsettled.discard(study.study_uid)
                assert settled.generation == self.generation[study.study_uid]

    # The workers

    @rule(study=STUDIES, back=st.integers(0, 1))
    def analyse(self, study: str, back: int) -> None:
        """A worker, perhaps a late one, works on the newest generation or on the one before."""
        generation = self.generation[study] - back
        if generation < 1:
            return
        state = self.catalog.set_state(study, generation, "running", now=self.now)
        if state != "running":
            assert state == "superseded"
            return
        # The same images give the same object.
        images = "".join(sorted(self.acknowledged[study]))
        uid = hashlib.sha256(images.encode()).hexdigest()[:20]
        self.catalog.plan_delivery(study, generation, "pacs", "sr", "1.9", uid, "/out", now=self.now)
        self.catalog.set_state(study, generation, "analysed", now=self.now)

    @rule(study=STUDIES, back=st.integers(0, 1), lost=st.booleans())
    def deliver(self, study: str, back: int, lost: bool) -> None:
        """One attempt. `lost`: the PACS is away."""
        generation = self.generation[study] - back
        for delivery in self.catalog.deliveries(study, generation):
            if not self.catalog.may_send(delivery):
                continue
            assert generation == self.generation[study], "an older generation was about to be sent"
            if lost:
                self._mark(study, generation, "pending")
                continue
            self.pacs.append((study, delivery.sop_instance_uid))
            self._mark(study, generation, "delivered")
            self.catalog.conclude(study, generation, now=self.now)

    def _mark(self, study: str, generation: int, state: str) -> None:
        self.catalog.mark_delivery(
            study, generation, "pacs", "sr", state, status=None, text=None, attempts=1, now=self.now  # type: ignore[arg-type]
        )  # fmt: skip

    # What must hold after every step

    @invariant()
    def nothing_acknowledged_is_missing_or_changed(self) -> None:
        for study, images in self.acknowledged.items():
            assert {i.sop_instance_uid: i.sha256 for i in self.catalog.instances(study)} == images

    @invariant()
    def conflicts_are_flagged(self) -> None:
        if hasattr(self, "catalog"):
            flagged = {(c.study_uid, c.sop_instance_uid) for s in "12" for c in self.catalog.conflicts(s)}
            assert flagged == self.conflicts

    @invariant()
    def only_the_newest_generation_lives(self) -> None:
        if hasattr(self, "catalog"):
            for job in self.catalog.jobs():
                assert job.state not in LIVE or job.generation == self.generation[job.study_uid]

    @invariant()
    def nothing_is_delivered_twice(self) -> None:
        if hasattr(self, "pacs"):
            assert len(self.pacs) == len(set(self.pacs))

    @invariant()
    def nothing_is_released_before_it_is_delivered(self) -> None:
        if hasattr(self, "catalog"):
            for study in self.catalog.releasable(1e9, 0.0):
                states = {d.state for d in self.catalog.deliveries(study.study_uid, study.generation)}
                assert states == {"delivered"}
                assert study.study_uid not in self.unsettled


TestIntake = Intake.TestCase
TestIntake.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
