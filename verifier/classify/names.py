"""What scanners call the pieces they report beside a secret, and which part of ours each is."""

from __future__ import annotations

import re

PARTS = frozenset(
    {"secret", "id", "token", "username", "password", "host", "port", "database", "account", "tenant", "region"}
)
"""Part names that stand everywhere (design §2)."""

_SQUEEZE = re.compile(r"[^a-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_SAME = {
    "secret": "secret key apikey apitoken accesstoken bearertoken authtoken personalaccesstoken pat value raw"
    " secretkey secretaccesskey awssecretaccesskey clientsecret appsecret apisecret privatekey secretvalue"
    " accountkey accesskeysecret authenticationtoken applicationkey appkey",
    "id": "id keyid accesskey accesskeyid awsaccesskeyid clientid appid applicationid sid accountsid apikeysid"
    " publickey pk apikeyid accessid consumerkey roleid authid keyname akid secretid integrationid",
    "token": "sessiontoken awssessiontoken securitytoken refreshtoken",
    "username": "username user login email userid email emailaddress accountemail uid dbuser",
    "password": "password pass passwd pwd passphrase dbpassword",
    "host": "host hostname domain url uri endpoint server site baseurl instance instanceurl shop shopdomain"
    " shopname store subdomain address siteurl apiurl vaultaddr",
    "port": "port",
    "database": "database db dbname databasename",
    "account": "account accountid accountname org organization organisation organizationid cloudname cloud"
    " projectid project clientemail merchantid namespace",
    "tenant": "tenant tenantid tenancy directoryid tenancyid",
    "region": "region location datacenter zone",
}

_TO_PART = {name: part for part, names in _SAME.items() for name in names.split()}


def part_of(name: str) -> str | None:
    """Return our part name for a scanner's name of a capture (`AccessKeyId`, `client-id`), `None` if unknown."""
    return name if name in PARTS else _TO_PART.get(_SQUEEZE.sub("", name.lower()))


def own(name: str) -> str:
    """Return a scanner's name in the form of a part name, `extra` when nothing is left of it."""
    return _SQUEEZE.sub("_", _HUMP.sub("_", name).lower()).strip("_")[:40] or "extra"
