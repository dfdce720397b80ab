"""Strategy `ends`: of each statistic only the lowest and the highest pool; what follows is as in the paper."""

from djsb import Paper, Proposal, control, request


class Ends:
    """Asks for the trials of one stage."""

    origin = "ends"

    def __init__(self, stage: str):
        self.stage = stage

    def propose(self, study, n=None):
        if self.stage != "probe":
            return Paper(self.stage).propose(study, n)
        cuts = [cut for cut in study.cuts if cut.reason is None and cut.label.endswith((" low", " high"))]
        pools = [request(study, control(study, study.pool_size), "control", "control")]
        pools += [request(study, cut.pool, cut.label, "single") for cut in cuts]
        return [
            Proposal(
                origin=self.origin, kind="probe", stage="probe", pools=tuple(pools), seeds=(seed,),
                reason=f"seed {seed + 1} of the ends of {len(cuts) // 2} statistics", fallback="fewer seeds",
            )
            for seed in range(study.study.search.seeds)
        ][:n]  # fmt: skip
