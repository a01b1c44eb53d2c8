"""Agents that are guided for a while: environments, guidances, their window, PPO, measures."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.metrics.functional.plasticity import dormant as dormant

    from .actor_critic import ActorCriticTask as ActorCriticTask
    from .data import EnvironmentDataModule as EnvironmentDataModule
    from .environment import Environment as Environment
    from .environment import Episodes as Episodes
    from .environment import Progress as Progress
    from .environment import Step as Step
    from .four_rooms import FourRooms as FourRooms
    from .four_rooms import make_layouts as make_layouts
    from .guidances import Demonstration as Demonstration
    from .guidances import Guidance as Guidance
    from .guidances import HelperReward as HelperReward
    from .guidances import MisleadingReward as MisleadingReward
    from .guidances import Potential as Potential
    from .gymnasium_environment import Gymnasium as Gymnasium
    from .monitor import AgentMonitor as AgentMonitor
    from .network import AgentMLP as AgentMLP
    from .ppo import advantages as advantages
    from .ppo import losses as losses
    from .window import GuidanceWindow as GuidanceWindow

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
