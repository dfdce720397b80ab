"""What data workers share: imported, and a first OP built, once in the process that they are forked from."""

from engine.data import datajuicer

datajuicer.load_op("text_length_filter", {})
