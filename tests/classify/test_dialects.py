"""Connection strings of every dialect: right parts even where nobody can be asked, and nothing made of other text."""

from __future__ import annotations

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.catalogue import load_catalogue
from verifier.classify import Classifier, dialects, split
from verifier.model import GENERIC, Claim, Place, SourceKind
from verifier.secret import Secret

CATALOGUE = load_catalogue()
CLASSIFIER = Classifier.of(CATALOGUE)
DAPI = "dapi" + makers.draw("0123456789abcdef", 32, "dapi")
PLAIN = "host=h database=d username=u password=p"


def classify(text: str, rule: str = "generic-api-key") -> tuple[str, dict[str, str]]:
    found = CLASSIFIER.classify(Claim("gitleaks", rule, Secret(text), Place(SourceKind.OTHER), 1, {}, None))
    return found.provider, {n: v.reveal() for n, v in found.parts.items()}


def parts(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split(" ") if item)


LONG = "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=Db.test)(PORT=1522))(CONNECT_DATA=(SERVICE_NAME=svc)))"
DIALECTS = [
    # Oracle
    ("jdbc:oracle:thin:u/p@" + LONG, "oracle_db", "host=db.test port=1522 database=svc username=u password=p"),
    ('jdbc:oracle:thin:u/"p@w"@//h:1521/svc', "oracle_db", "host=h port=1521 database=svc username=u password=p@w"),
    ("jdbc:oracle:oci:u/p@tcps://h:2484/svc?x=1", "oracle_db", "host=h port=2484 database=svc username=u password=p"),
    ("jdbc:oracle:thin:u/p@TNSNAME", "oracle_db", "host=tnsname username=u password=p"),
    (f"Data Source={LONG};User Id=u;Password=p;", "oracle_db",
     "host=db.test port=1522 database=svc username=u password=p"),
    ("oracle+cx_oracle://u:p@h:1521/?service_name=svc", "oracle_db",
     "host=h port=1521 database=svc username=u password=p scheme=oracle"),
    # SQL Server
    ("jdbc:sqlserver://;serverName=h;portNumber=1433;user=u;password=p", "sqlserver",
     "host=h port=1433 username=u password=p"),
    ("Server=h;Port=1433;User ID=u;Password=p", "sqlserver", "host=h port=1433 username=u password=p"),
    # MySQL
    ("u:p@ss:w@tcp(Db.test:3307)/shop?parseTime=true", "mysql",
     "host=db.test port=3307 database=shop username=u password=p@ss:w"),
    ("u:p@unix(/run/mysqld.sock)/shop", "mysql", "database=shop username=u password=p"),
    ("jdbc:mysql://address=(host=h)(port=3307)(user=u)(password=p)/d", "mysql",
     "host=h port=3307 database=d username=u password=p"),
    ("jdbc:mysql://(host=h,port=3307,user=u)/d?password=p%40w", "mysql",
     "host=h port=3307 database=d username=u password=p@w"),
    ("jdbc:mariadb:loadbalance://address=(host=h)(port=1)/d?user=u&password=p", "mysql",
     "host=h port=1 database=d username=u password=p"),
    ("Server=h;Port=3306;Database=d;Uid=u;Pwd=p;", "mysql", "host=h port=3306 database=d username=u password=p"),
    # PostgreSQL and kin
    ("host=h port=5433 dbname=d user=u password='p w\\'s' sslmode=require", "postgres",
     {"host": "h", "port": "5433", "database": "d", "username": "u", "password": "p w's",
      "options": "sslmode=require"}),
    ("user=u password=p host=h connect_timeout=10", "postgres", "host=h username=u password=p"),
    ("cockroachdb://u:p@h:26257/d?sslmode=verify-full", "postgres",
     "host=h port=26257 database=d username=u password=p scheme=cockroachdb options=sslmode=verify-full"),
    ("jdbc:redshift://h:5439/d?user=u&password=p", "postgres",
     "host=h port=5439 database=d username=u password=p scheme=redshift"),
    ("Driver={Amazon Redshift (x64)};Server=h;Database=d;UID=u;PWD=p", "postgres", PLAIN),
    # Redis, MongoDB, RabbitMQ
    ("Acme.redis.cache.windows.net:6380,password=p=,ssl=True,abortConnect=False", "redis",
     "host=acme.redis.cache.windows.net port=6380 password=p= scheme=rediss"),
    ("h,user=u,password=p,defaultDatabase=3", "redis", "host=h username=u password=p database=3"),
    ("a:1,b:2,password=p", "redis", "host=a:1,b:2 password=p"),
    ("mongodb+srv://u:p@c.example/d?authSource=admin", "mongodb_uri",
     "username=u password=p host=c.example database=d scheme=mongodb+srv options=authsource=admin"),
    ("host=h;virtualHost=/;username=u;password=p", "rabbitmq", "host=h username=u password=p"),
    # others that are left alone, each with its reason
    ("jdbc:snowflake://acme.snowflakecomputing.com/?user=u&password=p&db=d", "snowflake_login",
     "host=acme.snowflakecomputing.com username=u password=p scheme=snowflake"),
    ("account=acme;user=u;password=p;db=d", "snowflake_login", "account=acme username=u password=p database=d"),
    ("clickhouse+native://u:p@h:9440/d?secure=true", "clickhouse_db",
     "host=h port=9440 database=d username=u password=p scheme=clickhouse"),
    ("jdbc:ch:https://h:8443/d?user=u&password=p", "clickhouse_db",
     "host=h port=8443 database=d username=u password=p scheme=ch"),
    ("cassandra://u:p@h:9042/ks", "cassandra", "host=h port=9042 database=ks username=u password=p scheme=cassandra"),
    ("Contact Points=h;Username=u;Password=p;Default Keyspace=k", "cassandra", "host=h username=u password=p"),
    ("neo4j+s://u:p@h:7687", "neo4j", "host=h port=7687 username=u password=p scheme=neo4j"),
    ("jdbc:neo4j:bolt://h:7687?user=u&password=p", "neo4j", "host=h port=7687 username=u password=p scheme=neo4j"),
    ("jdbc:db2://h:50000/d:user=u;password=p;sslConnection=true;", "db2",
     "host=h port=50000 database=d username=u password=p"),
    ("jdbc:as400://h;user=u;password=p", "db2", "host=h username=u password=p"),
    ("jdbc:informix-sqli://h:1533/d:INFORMIXSERVER=s;user=u;password=p", GENERIC,
     "host=h port=1533 database=d username=u password=p"),
    ("jdbc:sap://h:30015/?user=u&password=p", "sap_hana", "host=h port=30015 username=u password=p scheme=sap"),
    ("Driver={HDBODBC};ServerNode=h:30015;UID=u;PWD=p", "sap_hana", "username=u password=p"),
    ("jdbc:teradata://h/DATABASE=d,USER=u,PASSWORD=p,TMODE=ANSI", "teradata", PLAIN),
    ("jdbc:vertica://h:5433/d?user=u&password=p", "vertica",
     "host=h port=5433 database=d username=u password=p scheme=vertica"),
    ("trino://u:p@h:443/hive/default", "trino",
     "host=h port=443 database=hive/default username=u password=p scheme=trino"),
    ("jdbc:hive2://h:10000/d;ssl=true;user=u;password=p", "trino",
     "host=h port=10000 database=d username=u password=p"),
    ("jdbc:impala://h:21050;AuthMech=3;UID=u;PWD=p", "trino", "host=h port=21050 username=u password=p"),
    ("jdbc:exa:h:8563;user=u;password=p", "exasol", "host=h port=8563 username=u password=p"),
    ("jdbc:sybase:Tds:h:5000/d?USER=u&PASSWORD=p", "sybase", "host=h port=5000 database=d username=u password=p"),
    ("jdbc:jtds:sybase://h:7100/d;user=u;password=p", "sybase", "host=h port=7100 database=d username=u password=p"),
    ("couchbases://u:p@h", "couchbase_db", "host=h username=u password=p scheme=couchbases"),
    ("nats://u:p@h:4222", "nats", "host=h port=4222 username=u password=p scheme=nats"),
    ("mqtts://u:p@h:8883", "mqtt", "host=h port=8883 username=u password=p scheme=mqtts"),
    # what other products call their own
    (f"jdbc:databricks://adb-1.azuredatabricks.net:443/default;transportMode=http;UID=token;PWD={DAPI}", "databricks",
     f"host=adb-1.azuredatabricks.net secret={DAPI}"),
    ("jdbc:spark://h:443/default;UID=u;PWD=p", GENERIC, "host=h port=443 database=default username=u password=p"),
    ("git+https://u:p@git.test/x.git", "basic_auth_url", "host=git.test username=u password=p path=x.git"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "expected"), DIALECTS, ids=range(len(DIALECTS)))
def test_every_dialect_gives_its_parts(text: str, kind: str, expected: str | dict[str, str]) -> None:
    assert classify(text) == (kind, parts(expected) if isinstance(expected, str) else expected)


def test_every_product_that_is_parsed_is_described() -> None:
    """A kind that the parser names is one that can be asked, or says why not."""
    named = {*split.SCHEMES.values(), *(kind for _, kind in split._DRIVERS), *split._PORTS.values()}
    for kind in named:
        spec = CATALOGUE.get(kind)
        assert spec is not None, kind
        assert spec.probe != "none" or spec.reason


@pytest.mark.parametrize(
    "text",
    [
        "password=p",
        "host=h",
        "a=b c=d password",
        "host=h password=",
        "user=u password='p",
        "h,ssl=True",
        "h,password=",
        "x@tcp(h)",
        "jdbc:oracle:thin:@//h:1521/svc",
        "jdbc:db2://h",
        "jdbc:teradata:h",
        "jdbc:hive2://h:10000/d;auth=noSasl",
        "Data Source=(DESCRIPTION=(HOST=h));User Id=u",
        "x" * 9000 + "=",
    ],
)
def test_what_holds_no_log_in_is_left_whole(text: str) -> None:
    assert dialects.take(text) is None


@given(st.text(st.sampled_from("jdbc:mysqloraclethin/@()=;&?,'\\\" password=hostuser"), max_size=60))
def test_any_text_is_taken_apart_or_left(text: str) -> None:
    for head in ("", "jdbc:", "jdbc:oracle:thin:", "host=h password="):
        found = dialects.take(head + text)
        assert found is None or all(found.parts.values())
