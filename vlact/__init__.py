"""vlact: vision-language action understanding, as notebooks that regenerate their own tables.

Data walks one way, and a module imports only from what stands to its left:

    worlds | datasets -> video -> models -> losses -> training -> inference -> metrics -> report
"""

from pathlib import Path

__version__ = "0.7.0"
_ABOVE = Path(__file__).resolve().parent.parent
CHECKOUT = (_ABOVE / "dvc.yaml").is_file()  # else an installed wheel
ROOT = _ABOVE if CHECKOUT else Path.cwd()  # where data and results are
