"""Any scanner's report to claims: parsed at the border, once, streaming.

with read("report.json") as report:
    for item in report:      # Claim or Skipped
        ...
report.format.name, report.findings, report.skipped, report.complete
"""

from verifier.ingest.catalogue import formats
from verifier.ingest.interface import Format, UnreadableReport
from verifier.ingest.read import Report, read

__all__ = ["Format", "Report", "UnreadableReport", "formats", "read"]
