"""Simulated patients, with known anatomy and known displacements."""

from bundle.simulation.dataset import simulate_dataset, write_example
from bundle.simulation.scan import known_displacement, simulate_scan
from bundle.simulation.slices import simulate_slices

__all__ = ["known_displacement", "simulate_dataset", "simulate_scan", "simulate_slices", "write_example"]
