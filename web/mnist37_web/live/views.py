"""Results of the client as the page's JSON."""

from __future__ import annotations

from mnist37_client import Loss, Run, Tag, Version


def view_run(run: Run, is_own: bool) -> dict[str, object]:
    """Return a run; `own` says whether web began it, which alone can stop it."""
    return {
        "run": run.run,
        "state": run.state,
        "name": run.name,
        "epochs": run.epochs,
        "learning_rate": run.learning_rate,
        "schedule": run.schedule,
        "best_epoch": run.best_epoch,
        "own": is_own,
    }


def view_loss(loss: Loss) -> dict[str, object]:
    """Return the loss and the accuracy on the validation images."""
    return {
        "version": loss.version,
        "loss": loss.loss,
        "accuracy": loss.accuracy,
        "count": loss.count,
    }


def view_version(version: Version) -> dict[str, object]:
    """Return a retained version."""
    return {
        "version": version.version,
        "origin": version.origin,
        "run": version.run,
        "at": version.committed_at.timestamp(),
    }


def view_tag(tag: Tag) -> dict[str, object]:
    """Return a tag."""
    return {"tag": tag.name, "version": tag.version}
