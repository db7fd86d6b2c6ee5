"""The resolved Config: all sections of a preset, checked together, and what follows from several of them."""

from __future__ import annotations

from typing import Dict, Sequence, Type

from pydantic import model_validator

from .sections import (
    AugmentationConfig,
    AveragingConfig,
    BatchConfig,
    DataConfig,
    FineTuneConfig,
    IpuConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    RunConfig,
    ScheduleConfig,
    Section,
)


class Config(Section):
    """A resolved preset."""

    preset: str
    model: ModelConfig
    data: DataConfig
    batch: BatchConfig
    precision: PrecisionConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    augmentation: AugmentationConfig
    averaging: AveragingConfig
    fine_tune: FineTuneConfig
    ipu: IpuConfig
    run: RunConfig

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

    @property
    def learning_rate(self) -> float:
        """Learning rate after the warm-up: base rate x global batch."""
        return self.schedule.base_learning_rate * self.batch.images_per_update

    @property
    def rmsprop_decay(self) -> float:
        """Share of the mean square that an update keeps: 1 - base decay x global batch."""
        return 1 - self.optimizer.rmsprop_base_decay * self.batch.images_per_update

    @property
    def validation_image_size(self) -> int:
        """Pixels on a side in validation."""
        return self.data.validation_image_size or self.data.image_size

    @property
    def validation_micro_batch_size(self) -> int:
        """Images at a time in validation."""
        return self.batch.validation_micro_batch_size or self.batch.micro_batch_size

    @property
    def ipus(self) -> int:
        """IPUs of all replicas."""
        return self.ipu.stages * self.batch.replicas

    def with_splits(self, splits: Sequence[str]) -> Config:
        """This config with other pipeline splits."""
        return self.model_copy(update={"ipu": self.ipu.model_copy(update={"pipeline_splits": tuple(splits)})})


SECTIONS: Dict[str, Type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "batch": BatchConfig,
    "precision": PrecisionConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "augmentation": AugmentationConfig,
    "averaging": AveragingConfig,
    "fine_tune": FineTuneConfig,
    "ipu": IpuConfig,
    "run": RunConfig,
}
SECTION_OF_FIELD: Dict[str, str] = {field: name for name, section in SECTIONS.items() for field in section.model_fields}
