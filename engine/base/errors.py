"""The errors a user can meet. Each says what is wrong, where, and what to do; all end in exit code 1."""


class DjsbError(Exception):
    """Base class. `str(error)` is the one line that a user reads."""

    exit_code = 1


class StudyError(DjsbError):
    """The study file, or what it names, is not usable."""


class DataError(DjsbError):
    """The dataset is not usable."""


class MachineError(DjsbError):
    """The machine lacks what the work needs: space, memory, a package, weights. No row is to blame."""


class OpError(DjsbError):
    """An operator, or one of its parameters, is unknown or may not be used."""


class PoolError(DjsbError):
    """A pool cannot be cut from the dataset."""


class StoreError(DjsbError):
    """The study's database is not usable."""


def damaged(what: str, why: object) -> StoreError:
    """What is said of a part of the database that cannot be what djsb wrote."""
    told = " ".join(str(why).split())[:160]
    return StoreError(
        f"{what} in the study's database is damaged or was tampered with ({told}); restore a copy of .djsb/study.db, "
        "or move it away to start anew"
    )


class BudgetError(DjsbError):
    """A budget is not one, or is spent."""


class LockedError(DjsbError):
    """Another engine holds the study."""


class TrialError(DjsbError):
    """A trial failed for good."""


class Awaited(DjsbError):
    """Proposals await a decision; nothing more can run until a person answers."""

    exit_code = 3
