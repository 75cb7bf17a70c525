"""Training: a ``LightningModule`` under a ``Trainer``, which serves every strategy."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import (
    DoublePrecision,
    MixedPrecision,
    Precision,
)
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.recorder import Recorder, StepClock
from pipelines.saver import Keeper
from pipelines.schedule import learning_rates
from pipelines.worker import Worker
from pipelines.workloads import Workload
from torch_pipeline.data import open_dataset
from torch_pipeline.loss import mean_loss
from torch_pipeline.model import build_model, weights_of
from torch_pipeline.optimizer import build_optimizer, global_norm
from torch_pipeline.sharding import Fsdp, Zero, ZeroPrecision, is_sharded, whole_state
from torch_pipeline.strategy import fence

__all__ = ["build_step", "train"]

_Batch = tuple[dict[str, Tensor], Tensor]


def train(
    config: Config,
    workload: Workload,
    strategy: Strategy,
    worker: Worker,
    recorder: Recorder,
    keeper: Keeper,
    transformed: Path | None = None,
) -> nn.Module:
    """Train from the workload's initial weights, or the keeper's, for ``training.steps`` steps.

    Speed, phases and this worker's losses go to the recorder. The keeper may end it earlier.

    Raises:
        InputError: if the machine cannot train in the configured precision.
    """
    training = config.training
    _set_precision(config, strategy)
    clock = StepClock(
        recorder,
        steps=training.steps,
        warmup_steps=training.warmup_steps,
        global_batch_size=config.global_batch_size(worker.all_replicas),
        fence=lambda: fence(strategy),
        done=keeper.start,
    )
    with ExitStack() as building:
        building.enter_context(recorder.phase("build_seconds"))
        batches = open_dataset(config, workload, "train", worker, transformed, keeper.start)
        local_workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        trainer = Trainer(
            strategy=strategy,
            devices=local_workers,
            num_nodes=worker.workers // local_workers,
            accelerator="auto",
            plugins=[_precision(training.precision, strategy)],
            max_steps=training.steps - keeper.start,
            max_epochs=-1,
            accumulate_grad_batches=training.gradient_accumulation,
            gradient_clip_val=training.optimizer.clip_norm,
            callbacks=[_Steps(clock, building, recorder, keeper)],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with strategy.tensor_init_context():
            model = build_model(workload, training.seed, training.activation_checkpointing)
        module = _Training(config, workload, model, recorder)
        parts = _in_parts(clock.waiting(batches), training.gradient_accumulation)
        trainer.fit(module, parts)
    module.flush_losses()
    if module.gathered is not None:
        with strategy.tensor_init_context():
            model = build_model(workload, training.seed, training.activation_checkpointing)
        model.cpu().load_state_dict(module.gathered)
    return model


def build_step(
    config: Config, workload: Workload, strategy: Strategy
) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """One step by itself, from the initial weights: takes a batch, updates, returns the loss.

    It is what the ``Trainer`` does under a strategy of one device, without the ``Trainer``; the
    learning rate stays at its peak.

    Raises:
        InputError: if the machine cannot train in the configured precision.
    """
    training, device = config.training, strategy.root_device
    _set_precision(config, strategy)
    precision = _precision(training.precision, strategy)
    with precision.tensor_init_context():
        model = build_model(workload, training.seed, training.activation_checkpointing)
    model = precision.convert_module(model).to(device).train()
    network = torch.compile(model) if training.compile == "default" else model
    optimizer = build_optimizer(config, model)
    parts, clip_norm = training.gradient_accumulation, training.optimizer.clip_norm
    scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")

    def step(features: dict[str, Tensor], target: Tensor) -> Tensor:
        losses = []
        optimizer.zero_grad()
        for part in _in_parts([(features, target)], parts):
            part_features, part_target = precision.convert_input(part)
            with precision.forward_context():
                loss = mean_loss(workload, network(part_features), part_target)
            scaler.scale(loss / parts).backward()
            losses.append(loss.detach())
        if clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return torch.stack(losses).mean()

    return step


def _set_precision(config: Config, strategy: Strategy) -> None:
    precision = config.training.precision
    if precision == "float16" and not torch.cuda.is_available():
        raise InputError("training.precision: float16 needs a GPU; bfloat16 runs on any machine")
    if precision == "float16" and is_sharded(strategy):
        raise InputError(
            f"training.precision: float16's scaling of the loss does not suit the shards of "
            f"{config.torch.strategy}; take bfloat16"
        )
    # On by default here for convolutions, and in TensorFlow: it rounds factors to ten bits.
    torch.backends.cudnn.allow_tf32 = False


def _precision(name: str, strategy: Strategy) -> Precision:
    if isinstance(strategy, Zero):
        return ZeroPrecision()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    match name:
        case "bfloat16":
            return MixedPrecision("bf16-mixed", device)
        case "float16":
            return MixedPrecision("16-mixed", device)
        case "float64":
            return DoublePrecision()
    return Precision()


class _Training(LightningModule):
    def __init__(
        self, config: Config, workload: Workload, model: nn.Module, recorder: Recorder
    ) -> None:
        super().__init__()
        self.model = model
        self.gathered: Mapping[str, Tensor] | None = None
        """What the training of a model in shards has led to."""
        self._config = config
        self._workload = workload
        self._recorder = recorder
        self._losses: list[Tensor] = []
        self._network = [model]  # in a list, so that its parameters are not registered twice

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, Fsdp):
            strategy.shard(self.model)

    def on_fit_start(self) -> None:
        if self._config.training.compile == "default":
            self._network = [torch.compile(self.model)]

    def on_train_end(self) -> None:
        if is_sharded(self.trainer.strategy):
            self.gathered = whole_state(self.model)

    def training_step(self, batch: _Batch, batch_idx: int) -> Tensor:
        features, target = batch
        # Every strategy averages gradients over the workers, whose batches have one size, so the
        # mean over the local batch is what each contributes.
        loss = mean_loss(self._workload, self._network[0](features), target)
        self._losses.append(loss.detach())
        return loss

    def flush_losses(self) -> None:
        """Bring the recorder's losses up to date: a step's is the mean over its parts."""
        if self._losses:
            parts = self._config.training.gradient_accumulation
            self._recorder.losses += torch.stack(self._losses).reshape(-1, parts).mean(1).tolist()
            self._losses.clear()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = build_optimizer(self._config, self.model)
        rates = learning_rates(self._config.training)
        # Asked for one step more than there are.
        shares = [*(rates / self._config.training.optimizer.learning_rate), 0.0]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: shares[step])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # DeepSpeed has its own gradients, and says their norm after the step.
        if self._recorder.traced and not isinstance(self.trainer.strategy, Zero):
            gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
            self._recorder.gradient_norms.append(_exact_norm(gradients))


class _Steps(Callback):
    """Ends the build phase where Lightning begins its loop, and stands between its steps."""

    def __init__(
        self, clock: StepClock, building: ExitStack, recorder: Recorder, keeper: Keeper
    ) -> None:
        self._clock = clock
        self._building = building
        self._recorder = recorder
        self._keeper = keeper
        self._done = keeper.start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._building.close()
        (optimizer,) = trainer.optimizers
        self._keeper.attach(pl_module.model, optimizer, self._clock, pl_module.flush_losses)
        self._clock.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._recorder.traced:
            if isinstance(trainer.strategy, Zero):
                self._recorder.gradient_norms.append(trainer.strategy.gradient_norm)
            tensors = [torch.from_numpy(each) for each in weights_of(pl_module.model).values()]
            self._recorder.weight_norms.append(_exact_norm(tensors))
        self._clock.step_done()
        self._done += 1
        if self._keeper.stop_after(self._done):
            trainer.should_stop = True


def _exact_norm(tensors: list[Tensor]) -> float:
    """In float64: the sum of a large tensor's squares rounds by more than the frameworks differ."""
    return float(global_norm([tensor.double() for tensor in tensors]))


def _in_parts(batches: Iterable[_Batch], parts: int) -> Iterator[_Batch]:
    for features, target in batches:
        size = len(target) // parts
        for start in range(0, size * parts, size):
            rows = slice(start, start + size)
            yield {name: values[rows] for name, values in features.items()}, target[rows]
