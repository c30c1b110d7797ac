"""World models: frozen encoders that turn an episode into one vector."""

from srpo.world_models.base import WorldModel, create, segment_means

__all__ = ["WorldModel", "create", "segment_means"]
