"""The evidence of one rotation: what an auditor gets, signed, and can check without the ledger.

`fold` adds a run's journal and a key's record up to a `RunEvidence`; `extract` reads what it needs from a ledger;
`signing` makes the file; `audit` checks one, with nothing but the file.
"""
