"""Configuration of RecMamba."""

from huggingface_hub.dataclasses import strict

from .configuration_state_space import StateSpaceConfig


@strict
class RecMambaConfig(StateSpaceConfig):
    r"""
    Configuration of [`RecMamba`]. Width, state and kernel are those written into the authors' model
    (https://github.com/nancheng58/RecMamba), and the dropout is that of its README's example (.2; its script's default
    is .5). The example has 5,000 positions and the script's default is 20; 2,000 is the length for which the README
    says what memory it takes.

    `initializer="reference"` draws every matrix with Xavier's normal distribution, as the authors' script does, those
    of the state space included.

    Args:
        max_position_embeddings (`int`, *optional*, defaults to 2000):
            Longest history that the model can take: it learns an embedding of each position.
        reference_padding (`bool`, *optional*, defaults to `False`):
            As the authors' code, for checkpoints converted from it: each history is padded on the left to
            `max_position_embeddings`, and the padding goes through Mamba like an item. So a history's last item always
            has the last position, and a short history costs as much as a long one. Carries no state.

    Example:

    ```python
    >>> from hf_seqrec import RecMamba, RecMambaConfig

    >>> model = RecMamba(RecMambaConfig(vocab_size=1001, max_position_embeddings=200))
    ```
    """

    model_type = "recmamba"

    max_position_embeddings: int = 2000
    reference_padding: bool = False

    @property
    def stateless_because(self) -> str | None:
        """Why no state can be carried from one call to the next; `None` where it can."""
        if not self.reference_padding:
            return None
        return "with `reference_padding=True` every new item moves the positions of all items before it"
