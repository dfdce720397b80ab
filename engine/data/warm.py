"""What data workers share: imported, and a first OP built, once in the process that they are forked from."""

from engine.base.lifetime import end_with_owner

end_with_owner()  # what follows takes seconds, in which nothing else would end it with its command
from engine.data import datajuicer  # noqa: E402

datajuicer.load_op("text_length_filter", {})
