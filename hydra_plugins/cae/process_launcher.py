"""``hydra/launcher=process``: each job of a sweep in a fresh process, by `cae_cli.sweep.launcher`."""

# No postponed annotations: Hydra runs this file before the module is known, and dataclasses look there.

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessLauncherConf:
    """The keys below ``hydra.launcher``; see `cae_cli.sweep.launcher.Options`."""

    _target_: str = "hydra_plugins.cae.process_launcher.ProcessLauncher"
    n_jobs: int | None = None
    timeout: float | None = None


ConfigStore.instance().store(
    group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="cae"
)


class ProcessLauncher(Launcher):
    """Each job in a fresh process.

    Args:
        n_jobs: number of jobs at once.
        timeout: seconds that a job may take.
    """

    def __init__(self, n_jobs: int | None, timeout: float | None) -> None:
        self.n_jobs = n_jobs
        self.timeout = timeout

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Receives what the jobs have in common."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs; the result of one that failed is NaN."""
        from cae_cli.sweep import launcher, pool  # not on the way to every command

        return launcher.launch(
            launcher.Options(n_jobs=self.n_jobs, timeout=self.timeout),
            # `cae train` gives Hydra a `Task`.
            pool.Work(self.hydra_context, self.task_function, self.config),  # type: ignore[arg-type]
            job_overrides,
            initial_job_idx,
        )
