"""The typed configuration: `load_config` makes a frozen `Config` of proxy.yaml or tells all that is wrong."""

from llm_proxy.config.credentials import KeyDigest
from llm_proxy.config.load import ConfigErrors, find_config, load_config
from llm_proxy.config.schema import (
    AgentConfig,
    BudgetConfig,
    Config,
    ModelConfig,
    OperatorConfig,
    TargetConfig,
)

__all__ = [
    "AgentConfig",
    "BudgetConfig",
    "Config",
    "ConfigErrors",
    "KeyDigest",
    "ModelConfig",
    "OperatorConfig",
    "TargetConfig",
    "find_config",
    "load_config",
]
