"""What is written of a call: when it opens, is refused, and closes."""

from llm_proxy.journal.entries import closed, opened, refused
from llm_proxy.journal.facts import facts
from llm_proxy.journal.replies import NOTHING_RELEASED
from llm_proxy.journal.rows import tags_of
from llm_proxy.journal.told import units

__all__ = ["NOTHING_RELEASED", "closed", "facts", "opened", "refused", "tags_of", "units"]
