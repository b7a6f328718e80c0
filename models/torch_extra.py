"""torch is an extra: who needs it asks here first, and says what for."""

from importlib.util import find_spec

from ecgbatch.settings import EcgbatchError


def has_torch() -> bool:
    """Whether torch is installed; to find out does not import it."""
    return find_spec("torch") is not None


def require_torch(purpose: str) -> None:
    """Raises EcgbatchError, which says what to install for this purpose, where torch is not installed."""
    if not has_torch():
        raise EcgbatchError(f"{purpose} needs torch: pip install 'ecgbatch[torch]'")
