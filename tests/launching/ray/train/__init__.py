"""Settings, as Ray's are given."""

from dataclasses import dataclass, field


@dataclass
class FailureConfig:
    max_failures: int = 0


@dataclass
class RunConfig:
    failure_config: FailureConfig = field(default_factory=FailureConfig)


@dataclass
class ScalingConfig:
    num_workers: int = 1
    use_gpu: bool = False
