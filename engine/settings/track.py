"""Section of `study.yaml`: where results are shown besides djsb's own screens."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from engine.settings.section import Section

Kind = Literal["mlflow", "wandb", "trackio", "tensorboard"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ELSEWHERE = ("uri", "url", "server", "server_url", "base_url", "host", "entity", "mode", "key", "api_key", "token",
             "space", "space_id", "dir", "path", "folder")  # fmt: skip
NAME = r"^[^\x00-\x1f\x7f/\\]{1,120}$"


class TrackerSection(Section):
    """One tracker. A study may come from elsewhere, so it names no address, folder or key."""

    @model_validator(mode="before")
    @classmethod
    def _names_no_place(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and (named := [name for name in fields if name in ELSEWHERE]):
            raise ValueError(
                f"{named[0]} has no place in a study file, which may come from elsewhere; set the tracker's variable, "
                "as MLFLOW_TRACKING_URI, or use djsb track --uri (docs/guides/trackers.md)"
            )
        return {} if fields in (None, True) else fields


class MlflowSection(TrackerSection):
    """MLflow, at MLFLOW_TRACKING_URI or in the study's folder."""

    experiment: str | None = Field(None, pattern=NAME, description="its experiment; null: the study's name")
    store: Literal["sqlite", "files"] = Field(
        "sqlite", description="the store in the study's folder, where MLFLOW_TRACKING_URI names no other"
    )


class WandbSection(TrackerSection):
    """W&B; runs stay on this machine unless WANDB_MODE=online."""

    project: str | None = Field(None, pattern=NAME, description="its project; null: the study's name")


class TrackioSection(TrackerSection):
    """trackio, in the study's folder."""

    project: str | None = Field(None, pattern=NAME, description="its project; null: the study's name")


class TensorboardSection(TrackerSection):
    """TensorBoard's event files, in the study's folder."""


class TrackSection(Section):
    """Trackers that are told of trials, leaderboard and answer while the study runs."""

    mlflow: MlflowSection | None = Field(None, description="MLflow; its options, or {}")
    wandb: WandbSection | None = Field(None, description="W&B; its options, or {}")
    trackio: TrackioSection | None = Field(None, description="trackio; its options, or {}")
    tensorboard: TensorboardSection | None = Field(None, description="TensorBoard; {}")

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        """`track: mlflow` and `track: [mlflow, {wandb: {project: x}}]` are as good as a mapping."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            entries = [{entry: {}} if isinstance(entry, str) else entry for entry in value]
            if any(not isinstance(entry, dict) for entry in entries):
                raise ValueError(f"each entry is a tracker ({', '.join(KINDS)}) or a mapping from it to its options")
            names = [name for entry in entries for name in entry]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{', '.join(sorted(twice))} stands twice; give each tracker once")
            value = {name: options for entry in entries for name, options in entry.items()}
        if isinstance(value, dict):
            if unknown := [name for name in value if name not in KINDS]:
                raise ValueError(f"{unknown[0]} is no tracker; choose from {', '.join(KINDS)}")
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A name alone stands for the tracker with its defaults, so what is not tracked is not written."""
        return {name: options for name, options in dump(self).items() if options is not None}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The trackers that are named."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)
