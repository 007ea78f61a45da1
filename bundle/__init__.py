"""Meta-learned image registration as a MONAI bundle."""

from bundle import console, data, evaluation, geometry, meta, registration

__all__ = ["console", "data", "evaluation", "geometry", "meta", "registration"]
