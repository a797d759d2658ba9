"""A playbook of the small world that is over soon."""

from __future__ import annotations

QUICK = """
id = "sim"
title = "A key of the small world, in a hurry"
for = ["sim_key"]
issuer = "sim"
[store]
use = "simstore"
write = { key_id = "{new.id}", key_secret = "{new.secret}" }
[create]
[verify]
times = 2
within = "60s"
every = "50ms"
[[consumers]]
use = "simconsumer"
[[sessions]]
use = "simsessions"
[retire]
drain = "0s"
soak = "50ms"
[prove]
times = 3
window = "300ms"
"""
