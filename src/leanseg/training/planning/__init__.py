"""Planning: a recipe for a dataset and a budget, the reasons for it, and what it costs."""

from leanseg.training.planning.budget import Budget, budget_of
from leanseg.training.planning.card import CostCard, cards_of
from leanseg.training.planning.planner import Planned, plan_training

__all__ = ["Budget", "CostCard", "Planned", "budget_of", "cards_of", "plan_training"]
