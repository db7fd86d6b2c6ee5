"""The sections of a Config: every field with its type, default, range, and what it means. Derived values are properties."""

from __future__ import annotations

from typing import Tuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Literal

AUTOMATIC_SPLITS = ("auto",)  # pipeline splits that the cost model finds


class Section(BaseModel):
    """A frozen group of fields; unknown keys are refused, and numbers are not made from text or bools."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelConfig(Section):
    """What is computed."""

    architecture: Literal[
        "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4", "efficientnet-b5",
        "efficientnet-b6", "efficientnet-b7", "efficientnet-cifar", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    ] = "efficientnet-b0"  # fmt: skip
    group_size: int = Field(16, ge=1, description="channels in a group of the spatial convolutions; 1 is depthwise")
    expand_ratio: int = Field(4, ge=1, description="channels inside a block / channels that enter it")
    norm: Literal["batch", "group", "layer", "none"] = Field("layer", description="normalisation")
    norm_groups: int = Field(4, ge=1, description="groups of group norm")
    norm_channel_grouping: Literal["contiguous", "strided"] = Field(
        "contiguous",
        description="channels of a group of group norm: neighbours, as in PyTorch, or every norm_groups-th, as in TensorFlow on IPUs",
    )
    norm_epsilon: float = Field(1e-3, gt=0, description="added to the variance in norms")
    batch_norm_momentum: float = Field(0.1, gt=0, le=1, description="share of a new batch in batch norm's running statistics")
    proxy_norm: bool = Field(False, description="normalise activations against a Gaussian proxy; with layer or group norm")
    proxy_epsilon: float = Field(0.03, gt=0, description="added to the variance in Proxy Norm")
    proxy_norm_scale: Literal["folded", "everywhere"] = Field(
        "folded",
        description="where Proxy Norm's scale acts: everywhere, at each activation, or, as published, folded: into the gate of "
        "squeeze-and-excitation, dropped before the pooling",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="probability before the classifier")
    drop_path: float = Field(0.2, ge=0, lt=1, description="probability to skip the last block; rises linearly from 0")
    trainable_layers: Tuple[str, ...] = Field(
        (), description="module paths, such as blocks.6, that train; the others are frozen in evaluation mode; empty: all train"
    )

    @model_validator(mode="after")
    def _check_proxy_norm(self) -> ModelConfig:
        if self.proxy_norm and self.norm not in ("layer", "group"):
            raise ValueError(f"proxy_norm needs norm layer or group, got norm {self.norm!r}")
        return self


class DataConfig(Section):
    """What is fed."""

    dataset: Literal["digits", "cifar10", "imagenet", "folder", "fashion-mnist", "generated", "synthetic"] = "digits"
    data_path: str = Field("", description="folder of the data set, where it has one")
    bounding_boxes: str = Field("", description="CSV of ImageNet's bounding boxes: file name, xmin, ymin, xmax, ymax as shares")
    image_size: int = Field(224, ge=8, description="pixels on a side, in training")
    validation_image_size: int = Field(0, ge=0, description="pixels on a side, in validation; 0 is the training size")
    preprocessing: Literal["none", "shift", "shift-flip", "standard", "autoaugment", "validation"] = Field(
        "standard",
        description="training pixels: as they are, shifted, shifted and flipped, random crop and flip, the same and AutoAugment, or as in "
        "validation",
    )
    eight_bit_io: bool = Field(True, description="send uint8 to the device and normalise there, else send floats")
    num_workers: int = Field(0, ge=0, description="host processes that load images")
    generated_images: int = Field(1024, ge=1, description="images in the generated and synthetic data sets")


class BatchConfig(Section):
    """How many images go where. One weight update uses replicas x gradient_accumulation x micro_batch_size images."""

    micro_batch_size: int = Field(4, ge=1, description="images that one replica computes at a time")
    gradient_accumulation: int = Field(0, ge=0, description="micro batches per replica and update; 0 derives it from global_batch_size")
    global_batch_size: int = Field(0, ge=0, description="images per update; 0 derives it from gradient_accumulation")
    replicas: int = Field(1, ge=1, description="data-parallel copies of the model")
    device_iterations: int = Field(1, ge=1, description="updates in one call of the device")
    validation_micro_batch_size: int = Field(0, ge=0, description="images at a time in validation; 0 is micro_batch_size")

    @model_validator(mode="after")
    def _check(self) -> BatchConfig:
        per_step = self.micro_batch_size * self.replicas
        arithmetic = f"micro_batch_size {self.micro_batch_size} x replicas {self.replicas} = {per_step}"
        if not self.gradient_accumulation and not self.global_batch_size:
            raise ValueError("state gradient_accumulation or global_batch_size")
        if self.global_batch_size and self.global_batch_size % per_step:
            below = max(self.global_batch_size // per_step, 1) * per_step
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of {arithmetic}; nearest: {below}, {below + per_step}"
            )
        if self.gradient_accumulation and self.global_batch_size not in (0, per_step * self.gradient_accumulation):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not {arithmetic} x gradient_accumulation {self.gradient_accumulation} = "
                f"{per_step * self.gradient_accumulation}; state only one of the two"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro batches per replica and weight update."""
        return self.gradient_accumulation or self.global_batch_size // (self.micro_batch_size * self.replicas)

    @property
    def images_per_update(self) -> int:
        """The global batch."""
        return self.micro_batch_size * self.replicas * self.accumulation_steps

    @property
    def images_per_call(self) -> int:
        """Images that one call of the training model consumes."""
        return self.images_per_update * self.device_iterations


class PrecisionConfig(Section):
    """Types on the device."""

    precision: Literal["16.16", "16.32", "32.32"] = Field("16.32", description="bits of activations and of stored weights")
    half_partials: bool = Field(False, description="half partial sums in matrix products")
    stochastic_rounding: bool = Field(False, description="round to half up or down at random, in proportion to the distance")

    @property
    def is_half_compute(self) -> bool:
        """Whether activations are half."""
        return self.precision in ("16.16", "16.32")

    @property
    def is_half_master(self) -> bool:
        """Whether stored weights are half."""
        return self.precision == "16.16"


class OptimizerConfig(Section):
    """The weight update."""

    optimizer: Literal["rmsprop", "sgd", "adamw"] = Field("rmsprop", description="rmsprop is TensorFlow's variant")
    momentum: float = Field(0.9, ge=0, lt=1, description="of rmsprop and sgd")
    combined_accumulator: bool = Field(False, description="sgd: keep gradient sum and velocity in one tensor")
    rmsprop_base_decay: float = Field(2**-14, gt=0, description="per image: the mean square decays by 1 - this x global batch")
    rmsprop_epsilon: float = Field(1e-3, gt=0, description="added to the mean square, inside the root")
    adamw_betas: Tuple[float, float] = Field((0.9, 0.999), description="decay of the first and second moment")
    weight_decay: float = Field(1e-5, ge=0, description="of all parameters but the scales and shifts of norms")
    accumulator_type: Literal["float16", "float32"] = Field("float32", description="type of gradient sums")
    loss_scaling_mode: Literal["fixed", "ramp", "automatic"] = Field("fixed", description="how the loss scale moves")
    loss_scaling: float = Field(1.0, gt=0, description="factor on the loss in the backward pass; the last one of a ramp")
    initial_loss_scaling: float = Field(1.0, gt=0, description="first loss scale of a ramp, which doubles in equal intervals")


class ScheduleConfig(Section):
    """The learning rate over time."""

    epochs: int = Field(350, ge=1, description="passes over the training images")
    base_learning_rate: float = Field(2**-14, gt=0, description="per image: the learning rate is this x global batch")
    schedule: Literal["constant", "exponential", "cosine", "step"] = Field("exponential", description="after the warm-up")
    warmup_epochs: float = Field(5.0, ge=0, description="linear rise from 0")
    decay_factor: float = Field(0.97, gt=0, le=1, description="of one drop, exponential and step")
    decay_every_epochs: float = Field(350 / 146, gt=0, description="between drops, exponential")
    decay_milestones_epochs: Tuple[float, ...] = Field((30.0, 60.0, 80.0), description="of drops, step")


class AugmentationConfig(Section):
    """What the device does to images and labels in training."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the label spread over the other classes")
    mixup_alpha: float = Field(0.0, ge=0, description="of the Beta distribution of mixing; 0 is off")
    cutmix_strength: float = Field(0.0, ge=0, le=1, description="0 is off; nothing is cut with probability 1.55 x this - 0.96")


class AveragingConfig(Section):
    """Averages of the weights over epochs, which validation prefers."""

    averaging: Literal["none", "exponential", "mean"] = Field("none", description="of weights at the ends of epochs")
    averaging_decay: float = Field(0.97, gt=0, lt=1, description="per epoch, exponential")
    averaging_last: int = Field(10, ge=1, description="epochs at the end of the run, mean")


class FineTuneConfig(Section):
    """A second, short training of the last layers at the resolution of use, from the averaged weights."""

    fine_tune_epochs: int = Field(0, ge=0, description="passes over the training images; 0: no fine-tuning")
    fine_tune_image_size: int = Field(0, ge=0, description="pixels on a side, the native size after training at half of it")
    fine_tune_layers: Tuple[str, ...] = Field(
        ("conv_head", "bn2", "classifier"), description="module paths that train, the top; blocks.6 adds the last stage"
    )
    fine_tune_global_batch_size: int = Field(512, ge=1, description="images per update")
    fine_tune_micro_batch_size: int = Field(8, ge=1, description="images that one replica computes at a time")
    fine_tune_replicas: int = Field(16, ge=1, description="data-parallel copies of the model, on one IPU each")
    fine_tune_base_learning_rate: float = Field(2**-11, gt=0, description="per image: the learning rate is this x global batch; cosine")
    fine_tune_warmup_epochs: float = Field(5.0, ge=0, description="linear rise from 0; the paper's is longer than its 2 epochs")

    @model_validator(mode="after")
    def _check_size(self) -> FineTuneConfig:
        if self.fine_tune_epochs and not self.fine_tune_image_size:
            raise ValueError(f"fine_tune_epochs {self.fine_tune_epochs} needs fine_tune_image_size, the pixels on a side")
        return self


class IpuConfig(Section):
    """How IPUs run it."""

    machine: Literal["m2000", "pod4", "pod16", "pod64", "bow-2000", "bow-pod4", "bow-pod16", "bow-pod64", "c600"] = Field(
        "pod16", description="what the cost model estimates for, and finds splits for"
    )
    pipeline_splits: Tuple[str, ...] = Field(
        (), description="module paths that begin a new pipeline stage, such as blocks.2.1; auto: the best ones, by the cost model"
    )
    automatic_stages: int = Field(2, ge=1, le=64, description="pipeline stages that auto makes")
    recomputation: bool = Field(True, description="compute activations again in the backward pass instead of keeping them")
    available_memory_proportion: Tuple[float, ...] = Field((), description="one share, or one for each IPU, for convolutions' temporaries")
    optimizer_state_off_chip: bool = Field(False, description="keep optimizer state in streaming memory")
    replicated_tensor_sharding: bool = Field(False, description="spread optimizer state over replicas")
    convolution_dithering: bool = Field(False, description="spread small convolutions over different tiles")

    @property
    def stages(self) -> int:
        """Pipeline stages, one on each IPU of a replica."""
        return self.automatic_stages if self.pipeline_splits == AUTOMATIC_SPLITS else len(self.pipeline_splits) + 1


class RunConfig(Section):
    """What a run keeps and says."""

    seed: int = Field(42, ge=0, description="of weights, data order, augmentation and the device")
    output: str = Field("", description="folder of the run; empty is runs/<preset>-<time>")
    resume: str = Field("", description="'auto' for the newest whole checkpoint under --output, or a checkpoint")
    fine_tune_from: str = Field("", description="fine-tune this checkpoint or run folder, instead of training first")
    allow_change: Tuple[str, ...] = Field((), description="fields that a resumed run may change")
    validate_every_epochs: int = Field(1, ge=0, description="0 validates at the end only")
    checkpoint_every_epochs: int = Field(0, ge=0, description="besides last and best; 0 is never")
    checkpoint_every_steps: int = Field(0, ge=0, description="weight updates between writes of last; 0 is at ends of epochs only")
    log_every_steps: int = Field(10, ge=1, description="weight updates between rows of training.csv and lines of a log")
    wandb: bool = Field(False, description="log to Weights & Biases as well")
    wandb_project: str = Field("g16-efficientnet", description="of Weights & Biases")
