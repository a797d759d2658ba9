"""The small world of `tests/playbooks`, which is awkward on purpose: new keys flap, dead ones go on for a while."""

from __future__ import annotations

import json
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from chaos_world import Case, Shelf, World
from world import OLD, SimStore, Small

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOK = """
id = "small-world"
title = "A key of the small world, in a hurry"
for = ["sim_key"]
issuer = "simhands.issuer"
[store]
use = "simhands.store"
write = { key_id = "{new.id}", key_secret = "{new.secret}" }
[create]
[[consumers]]
use = "simhands.consumer"
[[sessions]]
use = "simhands.sessions"
"""
HANDS = ("issuer", "store", "consumer", "sessions")


@dataclass
class SmallKey(Case):
    """A world of its own for every key."""

    small: Any = None

    def works(self, fields: Mapping[str, str]) -> bool:
        """Whether the provider calls it active: what flaps for a moment is not the rotation's fault."""
        row = self.small.db.execute("SELECT secret, state FROM keys WHERE id=?", (fields["key_id"],)).fetchone()
        return bool(row == (fields["key_secret"], "active"))

    def old_works(self) -> bool:
        return bool(self.small.accepted(OLD, self.parts["secret"]))

    def live(self) -> list[str]:
        return sorted(set(self.small.keys()) - set(self.small.keys("colleague")))

    def others(self) -> object:
        return self.small.harmed()

    def consumed(self, fields: Mapping[str, str]) -> bool:
        return bool(self.small.at_consumer() == dict(fields))

    def colleague(self) -> None:
        self.small.colleague_makes()

    def end(self) -> None:
        self.small.db.close()


class SmallWorld(World):
    playbook = "small-world"
    kind = "sim_key"
    needs = ()
    imports = ("world", *(f"simhands.{hand}" for hand in (*HANDS, "provider")))

    def config(self) -> str:
        (self.folder / "books").mkdir()
        (self.folder / "books" / "small.toml").write_text(BOOK)
        return '[catalogue]\nmodules = ["simhands.provider"]\n'

    def rotate(self) -> str:
        modules = json.dumps([f"simhands.{hand}" for hand in HANDS])
        return f'playbooks = ["{self.folder}/books"]\nmodules = {modules}'

    def case(self, n: int) -> SmallKey:
        path, secret = self.folder / f"world-{n}.sim", f"leaked-{token_hex(12)}"
        small = Small(path)
        small.set(lag_new=0.2, lag_dead=0.2, propagation=0, marks=n % 2 == 0, flaps=True)
        small.begin()
        stored = {"key_id": OLD, "key_secret": secret}
        small.db.execute("UPDATE keys SET secret=? WHERE id=?", (secret, OLD))
        for table in ("store", "consumer"):
            small.db.execute(f"UPDATE {table} SET fields=?", (json.dumps(stored),))
        small.colleague_makes()
        env = {"LAPSE_TEST_WORLD": str(path)}
        return SmallKey({"id": OLD, "secret": secret}, stored, env=env, small=small)

    def shelf(self, case: Case, n: int) -> Shelf:
        assert isinstance(case, SmallKey)
        return Shelf(SimStore(case.small), {})
