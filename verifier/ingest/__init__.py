"""Any scanner's report to claims: parsed at the border, once, streaming."""
