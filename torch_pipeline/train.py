"""Training: a ``LightningModule`` under a ``Trainer``, which serves every strategy."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.nn import functional

from pipelines.config import Config, OptimizerConfig
from pipelines.recorder import Recorder, StepClock
from pipelines.worker import Worker
from pipelines.workloads import Vision
from torch_pipeline.data import open_dataset
from torch_pipeline.model import build_model
from torch_pipeline.strategy import fence

__all__ = ["train"]


def train(
    config: Config,
    workload: Vision,
    strategy: Strategy,
    worker: Worker,
    recorder: Recorder,
    transformed: Path | None = None,
) -> nn.Module:
    """Train from the workload's initial weights for ``training.steps`` steps.

    Speed, phases and this worker's losses go to the recorder.
    """
    clock = StepClock(
        recorder,
        steps=config.training.steps,
        warmup_steps=config.training.warmup_steps,
        global_batch_size=config.global_batch_size(worker.workers),
        fence=lambda: fence(strategy),
    )
    with ExitStack() as building:
        building.enter_context(recorder.phase("build_seconds"))
        batches = open_dataset(config, workload, "train", worker, transformed)
        module = _Training(build_model(workload, config.training.seed), config.training.optimizer)
        local_workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        trainer = Trainer(
            strategy=strategy,
            devices=local_workers,
            num_nodes=worker.workers // local_workers,
            accelerator="auto",
            max_steps=config.training.steps,
            max_epochs=-1,
            callbacks=[_Timing(clock, building)],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, clock.waiting(batches))
    recorder.losses = torch.stack(module.losses).tolist()
    return module.model


class _Training(LightningModule):
    def __init__(self, model: nn.Module, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.model = model
        self.losses: list[Tensor] = []
        self._optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        features, labels = batch
        # DistributedDataParallel averages gradients over the workers, whose batches have one
        # size, so the mean over the local batch is what each contributes.
        loss = functional.cross_entropy(self.model(features), labels)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _build_optimizer(self.model, self._optimizer)


class _Timing(Callback):
    """Ends the build phase where Lightning begins its loop, and counts the steps."""

    def __init__(self, clock: StepClock, building: ExitStack) -> None:
        self._clock = clock
        self._building = building

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._building.close()
        self._clock.start()

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._clock.step_done()


def _build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    decayed = [weight for name, weight in model.named_parameters() if not name.endswith("bias")]
    exempt = [weight for name, weight in model.named_parameters() if name.endswith("bias")]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        eps=1e-8,
    )
