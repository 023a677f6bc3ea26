"""Seconds of operations: physics forms, their residuals, and the fits that calibration makes.

Shared by the runtime, which fits them, and the simulator, which reads them.
"""
