"""Every shipped playbook has a world; the small world, which is awkward, has one more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chaos_aws
import chaos_bao
import chaos_clouds
import chaos_databases
import chaos_saas
import chaos_small
import chaos_ways

if TYPE_CHECKING:
    from chaos_world import World

WORLDS: dict[str, type[World]] = {
    world.playbook: world
    for world in (
        chaos_aws.Aws,
        chaos_clouds.GoogleWorld,
        chaos_clouds.Entra,
        chaos_clouds.Storage,
        chaos_saas.OpenAi,
        chaos_saas.Anthropic,
        chaos_bao.Tokens,
        chaos_bao.AppRole,
        chaos_databases.StaticRole,
        chaos_databases.Postgres,
        chaos_databases.MariaDb,
        chaos_databases.Redis,
        chaos_saas.GitHub,
        chaos_saas.GitLab,
        chaos_saas.Slack,
        chaos_saas.HuggingFace,
        chaos_saas.SelfRevoke,
        chaos_saas.Assisted,
        chaos_saas.KvCopy,
        chaos_ways.ToDynamic,
        chaos_ways.ToStatic,
        chaos_ways.TokenToJwt,
        chaos_ways.SecretIdToJwt,
        chaos_small.SmallWorld,
    )
}
