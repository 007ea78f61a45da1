"""Simulated patients, with known anatomy and known displacements."""

from bundle.simulation.dataset import simulate_dataset
from bundle.simulation.scan import known_displacement, simulate_scan

__all__ = ["known_displacement", "simulate_dataset", "simulate_scan"]
