"""How results leave us: one file a format, all from the ledger's own views."""
