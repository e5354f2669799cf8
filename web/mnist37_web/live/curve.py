"""The curve of the newest run, for browsers: few points, however long the run is."""

from __future__ import annotations

from mnist37_client import Progress

POINTS_MAX = 1_000
NEW_MAX = 100  # points in one event

Point = tuple[int, float, float, float]  # epoch, training loss, validation loss, accuracy


class Curve:
    """The points of a run, of long runs every second one, or every fourth, and so on.

    Attributes:
        points: the curve, oldest first.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._new: list[Point] = []
        self._is_new_run = False

    def begin(self) -> None:
        """Forget the points of another run."""
        self.points.clear()
        self._new.clear()
        self._is_new_run = True

    def add(self, progress: Progress) -> None:
        """Add an epoch."""
        point = (
            progress.epoch,
            round(progress.train_loss, 5),
            round(progress.valid_loss, 5),
            round(progress.valid_accuracy, 4),
        )
        self.points.append(point)
        self._new.append(point)
        if len(self.points) > POINTS_MAX:
            self.points = thin(self.points)
        if len(self._new) > POINTS_MAX:
            self._new = thin(self._new)

    def take_new(self) -> dict[str, object] | None:
        """Return the points since the last call, and whether they begin a curve; None if none."""
        if not self._new and not self._is_new_run:
            return None
        while len(self._new) > NEW_MAX and not self._is_new_run:
            self._new = thin(self._new)
        news = {"begins": self._is_new_run, "points": self._new}
        self._new, self._is_new_run = [], False
        return news


def thin(points: list[Point]) -> list[Point]:
    """Return every second point, the first and the last one included."""
    return [*points[:-1:2], points[-1]]
