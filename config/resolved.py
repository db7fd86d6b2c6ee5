"""The resolved Config: all sections of a preset, checked together, its phases, and what follows from several sections."""

from __future__ import annotations

import copy
from typing import Any, Dict, Optional, Tuple, Type

from pydantic import Field, create_model, model_validator

from .errors import ConfigError, nearest
from .merging import merge
from .sections import (
    SHAPING_FIELDS,
    AugmentationConfig,
    AveragingConfig,
    BatchConfig,
    DataConfig,
    IpuConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    RunConfig,
    ScheduleConfig,
    Section,
    ValidationConfig,
)

SECTIONS: Dict[str, Type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "batch": BatchConfig,
    "validation": ValidationConfig,
    "precision": PrecisionConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "augmentation": AugmentationConfig,
    "averaging": AveragingConfig,
    "ipu": IpuConfig,
    "run": RunConfig,
}
OVERLAY = "fine_tune"  # what the second phase states anew; before the names of its fields, too


def _partial(section: Type[Section]) -> Type[Section]:
    """The fields of a section, of which a second phase states those that it changes; checks of several fields are left to the whole.

    Its epochs may be none: then there is no second phase, whatever else is stated.
    """
    own = {name: copy.copy(info) for name, info in section.model_fields.items() if name not in SHAPING_FIELDS}  # pydantic changes them
    fields: Dict[str, Any] = {name: (info.annotation, info) for name, info in own.items()}
    if section is ScheduleConfig:
        fields["epochs"] = (Optional[int], own["epochs"])
    return create_model(section.__name__, __base__=Section, __doc__=section.__doc__, **fields)


# A run keeps and says the same in both phases, and the network of the second is that of the first.
OVERLAY_SECTIONS: Dict[str, Type[Section]] = {name: _partial(section) for name, section in SECTIONS.items() if name != "run"}


def _places() -> Dict[str, Tuple[str, ...]]:
    own = {section.flag_prefix + field: (name, field) for name, section in SECTIONS.items() for field in section.model_fields}
    changed = {field: place for field, place in own.items() if place[1] in OVERLAY_SECTIONS.get(place[0], Section).model_fields}
    return {**own, **{f"{OVERLAY}_{field}": (OVERLAY, *place) for field, place in changed.items()}}


# Where a field is, by the name under which flags and messages know it: ("batch", "replicas"), ("validation", "replicas"),
# ("fine_tune", "batch", "replicas") are replicas, validation_replicas and fine_tune_replicas.
PLACES: Dict[str, Tuple[str, ...]] = _places()


class Config(Section):
    """A resolved preset. `fine_tune` holds what the second phase states anew, by section and field: look at `phases` instead."""

    preset: str
    model: ModelConfig
    data: DataConfig
    batch: BatchConfig
    validation: ValidationConfig
    precision: PrecisionConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    augmentation: AugmentationConfig
    averaging: AveragingConfig
    ipu: IpuConfig
    run: RunConfig
    fine_tune: Dict[str, Dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_mixing(self) -> Config:
        needed = 1 + bool(self.augmentation.mixup_alpha) + bool(self.augmentation.cutmix_strength)
        needed = 3 if self.augmentation.cutmix_strength else needed
        if self.batch.micro_batch_size < needed:
            raise ValueError(
                f"micro_batch_size {self.batch.micro_batch_size} is too small for mixup and cutmix, which mix images inside a micro batch: "
                f"at least {needed}, or mixup_alpha 0 and cutmix_strength 0"
            )
        return self

    @model_validator(mode="after")
    def _check_decay(self) -> Config:
        if self.optimizer.optimizer == "rmsprop" and self.rmsprop_decay <= 0:
            raise ValueError(
                f"rmsprop_base_decay {self.optimizer.rmsprop_base_decay} x global batch {self.batch.images_per_update} must be below 1"
            )
        return self

    @model_validator(mode="after")
    def _check_allowed_changes(self) -> Config:
        for field in self.run.allow_change:
            if field not in PLACES:
                raise ValueError(f"allow_change names the unknown field {field!r}{nearest(field, PLACES)}")
        return self

    @property
    def phases(self) -> Tuple[Config, ...]:
        """This config, and that of the second phase, where there is one: where `fine_tune` states epochs.

        The second is the first with what `fine_tune` states merged over it, as a preset is over its parents; all that makes a Config has
        checked it.
        """
        if self.fine_tune.get("schedule", {}).get("epochs") is None:
            return (self,)
        own = {name: getattr(self, name).model_dump() for name in SECTIONS}
        return self, Config(preset=self.preset, **merge(own, self.fine_tune))

    @property
    def learning_rate(self) -> float:
        """The full learning rate, which warm-up and decay multiply: base rate x global batch."""
        return self.schedule.base_learning_rate * self.batch.images_per_update

    @property
    def rmsprop_decay(self) -> float:
        """Share of the mean square that an update keeps: 1 - base decay x global batch."""
        return 1 - self.optimizer.rmsprop_base_decay * self.batch.images_per_update

    @property
    def validation_image_size(self) -> int:
        """Pixels on a side in validation."""
        return self.validation.image_size or self.data.image_size

    @property
    def validation_micro_batch_size(self) -> int:
        """Images at a time in validation."""
        return self.validation.micro_batch_size or self.batch.micro_batch_size

    @property
    def validation_replicas(self) -> int:
        """Data-parallel copies of the model in validation."""
        return self.validation.replicas or self.batch.replicas

    @property
    def ipus(self) -> int:
        """IPUs of all replicas."""
        return self.ipu.stages * self.batch.replicas


def second_phase(config: Config) -> Config:
    """The config of the second phase; ConfigError where there is none."""
    if len(config.phases) == 1:
        raise ConfigError(f"preset {config.preset!r} has no second phase: give --fine-tune-epochs, such as 2")
    return config.phases[1]
