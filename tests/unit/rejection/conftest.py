from ..evaluation.conftest import sample

__all__ = ["sample"]
