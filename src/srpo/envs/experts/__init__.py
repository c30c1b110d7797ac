"""Scripted experts with privileged state: a source of demonstrations."""

from srpo.envs.experts.pick_place import PickPlaceExpert, expert_for

__all__ = ["PickPlaceExpert", "expert_for"]
