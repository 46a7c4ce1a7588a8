"""Reports on evaluation runs: files of records in, tables and pictures out.

Nothing here asks a model or reads a data set; a report is made from stored records alone, as often as one likes.
"""

from spacy_relx.report.gather import Options, make_report
from spacy_relx.report.write import write_report

__all__ = ["Options", "make_report", "write_report"]
