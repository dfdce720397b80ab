"""What data workers share: imported once in the process that they are forked from."""

from engine import datajuicer

datajuicer.prepare()

import data_juicer.ops  # noqa: E402, F401  (after the installer is barred)
