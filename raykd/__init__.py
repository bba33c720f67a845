"""raykd: federated few-shot learning with dual knowledge distillation, simulated on Ray."""

__version__ = "0.1.0"
