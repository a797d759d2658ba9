"""The fleet: one night's keys in chunks, shared by any number of workers on one PostgreSQL.

`lapse nightly` leads: it cuts what is due into chunks of one vendor's keys each, puts them into a queue, and collects
what came of them. `lapse worker`, on any number of machines, takes chunks. One vendor's chunks run one at a time in the
whole fleet, so that its limits hold fleet-wide by one worker's own bucket. The ledger alone says what was judged.
"""
