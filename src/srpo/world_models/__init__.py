"""World models: frozen encoders that turn an episode into one vector, or into one a moment."""

from srpo.world_models.base import WorldModel, create, moments, segment_means

__all__ = ["WorldModel", "create", "moments", "segment_means"]
