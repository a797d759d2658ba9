"""The command line: declarations only. Each command's work is in `lapse.commands`, imported when it runs.

Nothing here may import more than typer, so that `lapse --help` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lapse import __version__
from lapse.exits import Exit

app = typer.Typer(
    name="lapse",
    help="Find the leaked keys that still work, replace them, and prove the old ones dead.",
    epilog="Exit codes: 0 nothing live or waiting, 1 broke, 2 wrong usage or config, 3 no input, 4 no rights, "
    "10 live keys remain, 11 only undecided ones, 12 waiting, 13 stopped part-way. `lapse VERB --help` says more.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ledger_app = typer.Typer(help="Make, check and export the record.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ledger_app, name="ledger")
policy_app = typer.Typer(
    help="Say which rule of the config acts on a key.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(policy_app, name="policy")


playbooks_app = typer.Typer(help="List, explain and check playbooks.", rich_markup_mode=None)
app.add_typer(playbooks_app, name="playbooks")


tokens_app = typer.Typer(
    help="Make and revoke tokens for the console's API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(tokens_app, name="tokens")


def _examples(*commands: str) -> str:
    """Return an epilog that shows commands as typed; the reference and the manual pages take them from it."""
    return "\b\nExamples:\n" + "\n".join(f"  {c}" for c in commands)


class Shape(StrEnum):
    """Output formats of `verify`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    SARIF = "sarif"


class Form(StrEnum):
    """Output formats of `report`."""

    HTML = "html"
    MARKDOWN = "markdown"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    SARIF = "sarif"
    DEFECTDOJO = "defectdojo"
    OCSF = "ocsf"


class Plain(StrEnum):
    """Output formats of the small commands."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration; else ./lapse.toml, else the user's.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary on stderr.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr, still never a secret.")]
AsOption = Annotated[str | None, typer.Option("--as", metavar="FORMAT", help="Report format; see `lapse formats`.")]
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--source", metavar="PATH", help="Checkout, unpacked image or docker-save archive: completes redacted secrets."
    ),
]
OriginOption = Annotated[
    str | None, typer.Option("--origin", metavar="NAME", help="What was scanned, such as docker:acme/api:1.2.")
]
PartialOption = Annotated[bool, typer.Option("--partial", help="Not a whole scan: what it lacks is not gone.")]
ExitZeroOption = Annotated[bool, typer.Option("--exit-zero", help="Exit 0 whatever was found; errors still count.")]


def _version(value: bool) -> None:  # noqa: FBT001  # typer's callback form
    if value:
        typer.echo(f"lapse {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find the leaked keys that still work, replace them, and prove the old ones dead."""


@app.command(
    epilog=_examples(
        "lapse ingest gitleaks.json trufflehog.jsonl",
        "gitleaks dir . -f json -r - | lapse ingest -",
        "lapse ingest kingfisher.json --source api.tar",
    )
)
def ingest(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Reports of any scanner; - is stdin.")],
    as_: AsOption = None,
    source: SourceOption = None,
    origin: OriginOption = None,
    partial: PartialOption = False,
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Read scanners' reports into the ledger.

    Prints findings, distinct keys and new ones. Asks no provider.
    """
    from lapse.commands import ingest as command

    _end(command.run(files, as_, source, origin, config, partial=partial, json=format_ is Plain.JSON, quiet=quiet))


@app.command(
    epilog=_examples(
        "lapse verify",
        "lapse verify gitleaks.json --exit-zero",
        "lapse verify aws-7f3a9c --no-wait",
    )
)
def verify(
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY|FILE", help="Keys to ask about, or reports to ingest first; else all that are due."
        ),
    ] = None,
    provider: Annotated[str | None, typer.Option("--provider", metavar="ID", help="Only this kind of key.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also ask about keys already proven dead.")] = False,
    wait: Annotated[
        bool | None, typer.Option("--wait/--no-wait", help="Stay for the second look at keys that just died.")
    ] = None,
    as_: AsOption = None,
    source: SourceOption = None,
    origin: OriginOption = None,
    partial: PartialOption = False,
    format_: Annotated[Shape, typer.Option("--format", help="Form of what goes to stdout.")] = Shape.TABLE,
    config: ConfigOption = None,
    exit_zero: ExitZeroOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask the providers which keys still work.

    Read-only calls only; `lapse providers --calls` lists them all.
    """
    from lapse.commands import verify as command

    options = command.Options(
        keys=tuple(keys or ()),
        provider=provider,
        every=all_,
        wait=wait,
        as_format=as_,
        source=source,
        origin=origin,
        partial=partial,
        shape=str(format_),
        quiet=quiet,
        verbose=verbose,
    )
    _end(command.run(options, config), exit_zero=exit_zero)


@app.command()
def status(
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="How many live keys to list.")] = 20,
    who: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Whose approvals to name first; else the log-in name's.")
    ] = None,
    config: ConfigOption = None,
    exit_zero: ExitZeroOption = False,
) -> None:
    """Show what is live and what is proven dead.

    First of all: keys removed from the source that were never revoked. Then the rotations that are not over.
    """
    from lapse.commands import status as command

    _end(command.run(config, limit, who, json=format_ is Plain.JSON), exit_zero=exit_zero)


@app.command(epilog=_examples("lapse show aws-7f3a9c"))
def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key's id, or a unique beginning of it.")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Print the secret itself; recorded in the ledger.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; needed with --reveal, and recorded.")
    ] = "",
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
) -> None:
    """Tell the story of one key.

    Where it was seen, what the provider said, whom it speaks for.
    """
    from lapse.commands import show as command

    _end(command.run(key, config, reveal=reveal, reason=reason, json=format_ is Plain.JSON))


@app.command(
    epilog=_examples(
        "lapse report -o leaked.html",
        "lapse report --format jsonl | jq .key",
        "lapse report --run r-4f2a1c -o evidence.html",
    )
)
def report(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="File to write; - is stdout.")] = "-",
    format_: Annotated[
        Form | None,
        typer.Option("--format", help="Form; else told by the file's ending (.html .md .sarif …)."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Signed evidence of one rotation: .json or .html.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Check such a file offline; needs no ledger.")
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", metavar="KEY", help="Who must have signed: fingerprint, key file or head file."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write all keys with places and verdicts.

    With --run, signed evidence of one rotation that anybody can check with --verify, without the ledger.
    """
    from lapse.commands import report as command

    _end(command.run(output, str(format_) if format_ else None, config, command.Evidence(run, verify, public_key)))


@app.command(epilog=_examples("lapse providers --calls", "lapse providers --coverage gitleaks"))
def providers(
    calls: Annotated[
        bool, typer.Option("--calls", help="List every call that can be made, for review and firewalls.")
    ] = False,
    coverage: Annotated[
        str | None, typer.Option("--coverage", metavar="SCANNER", help="How many of a scanner's rules can be verified.")
    ] = None,
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
) -> None:
    """List the kinds of key, and their calls."""
    from lapse.commands import providers as command

    _end(command.run(config, coverage, calls=calls, json=format_ is Plain.JSON))


@app.command()
def formats() -> None:
    """List the report formats we read."""
    from lapse.commands import formats as command

    _end(command.run())


@app.command()
def doctor(config: ConfigOption = None) -> None:
    """Check whether the set-up is sound.

    Configuration, providers, ledger, sealing key, proxy and certificates. Calls no provider.
    """
    from lapse.commands import doctor as command

    _end(command.run(config))


@app.command(epilog=_examples("lapse nightly --deadline 6h"))
def nightly(
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="SPAN", help="Stop cleanly after 90s, 10m or 6h; the next night goes on."),
    ] = None,
    wait: Annotated[
        bool | None, typer.Option("--wait/--no-wait", help="Stay for the second look at keys that just died.")
    ] = None,
    sources: Annotated[bool, typer.Option("--sources/--no-sources", help="Read the configured sources first.")] = True,
    fleet: Annotated[
        bool | None, typer.Option("--fleet/--no-fleet", help="Let the workers ask; else: if [fleet] url is set.")
    ] = None,
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
    exit_zero: ExitZeroOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read the sources, ask about what is due, act by the rules.

    By [nightly], [[policy]] and [notify] of the config; made for cron. Exit 13: the night ended before all was asked.
    """
    from lapse.commands import nightly as command

    options = command.Options(deadline, wait, sources, format_ is Plain.JSON, quiet, fleet)
    _end(command.run(options, config), exit_zero=exit_zero)


@app.command()
def worker(
    chunks: Annotated[
        int | None,
        typer.Option("--chunks", min=1, metavar="N", help="Chunks under way at once, each of another vendor."),
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Work for a fleet on PostgreSQL.

    Takes its share of a night's keys and of rotations, and goes on with what a worker that died left. Any number, on
    any machines; all with the same config, ledger and sealing key.
    """
    from lapse.commands import worker as command

    _end(command.run(config, chunks, quiet=quiet))


@app.command(epilog=_examples("lapse diff --since 7d"))
def diff(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="A date (2026-11-01) or a span (12h, 7d).")
    ] = "1d",
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
    exit_zero: ExitZeroOption = False,
) -> None:
    """Show what changed since a time.

    New, died, revived, still live; time to revoke by owner, kind and image namespace; what breaks the SLA.
    """
    from lapse.commands import diff as command

    _end(command.run(since, config, json=format_ is Plain.JSON), exit_zero=exit_zero)


@policy_app.command("test")
def policy_test(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key's id, or a unique beginning of it.")],
    format_: Annotated[Plain, typer.Option("--format", help="Form of what goes to stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
) -> None:
    """Say which rule fires for a key, and why no earlier one.

    Does nothing else.
    """
    from lapse.commands import policy as command

    _end(command.run(key, config, json=format_ is Plain.JSON))


@app.command(epilog=_examples("lapse purge --dead"))
def purge(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys whose secrets to delete.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All keys proven dead, whatever the retention.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete kept secrets from the ledger.

    The record of what happened stays.
    """
    from lapse.commands import purge as command

    _end(command.run(tuple(keys or ()), config, dead=dead))


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave everything in DIR, a new or empty folder.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Stay up with the console, for you to try it; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Show it all on a sandbox on this machine.

    Real servers where they are installed, made-up keys; no provider is called.
    """
    from lapse.commands import demo as command

    _end(command.run(keep, serve=serve))


@ledger_app.command("init", epilog=_examples("lapse ledger init", "lapse ledger init --key env:LAPSE_SEAL"))
def ledger_init(
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="REF", help="Sealing key: file:PATH (made if missing), env:, keyring:, vault:."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make the ledger and its sealing key.

    With a sealing key, secrets are kept (sealed) for the nightly job; without, only for the run.
    """
    from lapse.commands import ledger as command

    _end(command.init(key, config))


@ledger_app.command("check", epilog=_examples("lapse ledger check --head head.json"))
def ledger_check(
    head: Annotated[Path | None, typer.Option("--head", metavar="FILE", help="A head exported earlier.")] = None,
    config: ConfigOption = None,
) -> None:
    """Prove that the record is whole.

    Says where anything was edited, removed or reordered.
    """
    from lapse.commands import ledger as command

    _end(command.check(head, config))


@ledger_app.command("head")
def ledger_head(config: ConfigOption = None) -> None:
    """Print the signed head.

    Kept elsewhere, it proves everything up to it.
    """
    from lapse.commands import ledger as command

    _end(command.head(config))


@ledger_app.command("rewrap")
def ledger_rewrap(
    key: Annotated[str, typer.Option("--key", metavar="REF", help="The new sealing key.")],
    config: ConfigOption = None,
) -> None:
    """Change the sealing key.

    Wraps the ledger's data key anew; no secret is decrypted.
    """
    from lapse.commands import ledger as command

    _end(command.rewrap(key, config))


class Manner(StrEnum):
    """How a key is rotated."""

    GRACEFUL = "graceful"
    EMERGENCY = "emergency"


WhoOption = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who does this; else the log-in name.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A rotation's name, such as r-4f2a1c.")]
WaitOption = Annotated[
    str | None, typer.Option("--wait", metavar="SPAN", help="Stay for waits up to this long (90s, 10m, 6h).")
]
FdOption = Annotated[int | None, typer.Option("--fd", metavar="N", help="Read a new secret from this descriptor.")]
SecretFileOption = Annotated[
    Path | None, typer.Option("--secret-file", metavar="FILE", help="Read a new secret from this file.")
]


@app.command(
    epilog=_examples(
        "lapse rotate aws-7f3a9c",
        "lapse rotate aws-7f3a9c --apply --set store.path=ci/aws",
        "lapse rotate aws-7f3a9c --mode emergency --apply --yes",
    )
)
def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key's id, or a unique beginning of it.")],
    apply: Annotated[bool, typer.Option("--apply", help="Run the plan; without it, only print it.")] = False,
    mode: Annotated[
        Manner, typer.Option("--mode", help="graceful: the new key first; emergency: stop the old one first.")
    ] = Manner.GRACEFUL,
    playbook: Annotated[
        str | None, typer.Option("--playbook", metavar="ID", help="Follow this playbook; `lapse playbooks` lists them.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Give, in your name, the approvals that need one person.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="What the playbook leaves open, such as store.path=ci/aws."),
    ] = None,
    who: WhoOption = None,
    wait: WaitOption = None,
    fd: FdOption = None,
    secret_file: SecretFileOption = None,
    format_: Annotated[Plain, typer.Option("--format", help="Form of the plan on stdout.")] = Plain.TABLE,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Replace a live key, and prove the old one dead.

    Prints the plan; --apply runs it, and survives any crash. Exit 12 while it waits, 13 when it stopped part-way.
    """
    from lapse.commands import rotate as command

    options = command.Options(
        key=key,
        apply=apply,
        mode=str(mode),
        playbook=playbook,
        yes=yes,
        sets=tuple(set_ or ()),
        who=who,
        wait=wait,
        fd=fd,
        secret_file=secret_file,
        json=format_ is Plain.JSON,
        quiet=quiet,
    )
    _end(command.run(options, config))


@app.command(epilog=_examples("lapse approve r-4f2a1c", "lapse approve r-4f2a1c --step delete"))
def approve(
    run: RunArgument,
    who: WhoOption = None,
    step: Annotated[list[str] | None, typer.Option("--step", metavar="STEP", help="Only this step.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take this person's approvals back.")] = False,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="A console on another machine; needs --token-file.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Your token for --server, role approver; its name is yours."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Agree to a step of a rotation, by name.

    Recorded, expiring, and revocable with --withdraw. On this machine's ledger --as NAME is taken at its word, as is
    whoever can write that file; with --server the name is the token's.
    """
    from lapse.commands import approve as command

    if server is not None or token_file is not None:
        if server is None or token_file is None or who is not None:
            raise typer.BadParameter("--server and --token-file go together, and without --as: the name is the token's")
        _end(command.remote(run, server, token_file, tuple(step or ()), withdraw=withdraw))
    _end(command.run(run, who, tuple(step or ()), config, withdraw=withdraw))


@app.command(epilog=_examples("lapse resume", "lapse resume r-4f2a1c --wait 10m"))
def resume(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One rotation; without it, all that can go on.")
    ] = None,
    who: WhoOption = None,
    wait: WaitOption = None,
    fd: FdOption = None,
    secret_file: SecretFileOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with rotations.

    After a crash, a wait, an approval or a failure that was seen to.
    """
    from lapse.commands import resume as command

    _end(command.run(run, who, config, wait, (fd, secret_file), quiet=quiet))


@app.command(epilog=_examples("lapse undo r-4f2a1c"))
def undo(run: RunArgument, who: WhoOption = None, config: ConfigOption = None, quiet: QuietOption = False) -> None:
    """Take a rotation back.

    Restores the old key and the old stored version, as long as nothing was destroyed.
    """
    from lapse.commands import undo as command

    _end(command.run(run, who, config, quiet=quiet))


@app.command(epilog=_examples("lapse serve --port 8017"))
def serve(
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 127.0.0.1 unless configured.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="Port to listen on; 0 takes a free one.")
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Open the console in a browser.

    Prints a log-in link that works once. No rotation depends on it: stop it at any time.
    """
    from lapse.commands import serve as command

    _end(command.run(config, host, port, quiet=quiet))


@app.command()
def watch(run: RunArgument, config: ConfigOption = None) -> None:
    """Follow a rotation as it happens.

    Changes nothing; Ctrl-C only stops watching.
    """
    from lapse.commands import watch as command

    _end(command.run(run, config))


@app.command(epilog=_examples("lapse completion bash > ~/.local/share/bash-completion/completions/lapse"))
def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print a completion script for your shell."""
    from lapse.commands import watch as command

    _end(command.completion(shell))


@tokens_app.command("add", epilog=_examples("lapse tokens add dashboard --role viewer --expires 90d"))
def tokens_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which program it is for.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="viewer, responder, approver or admin.")
    ] = "viewer",
    expires: Annotated[str | None, typer.Option("--expires", metavar="SPAN", help="Ends after 12h or 90d.")] = None,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, once."""
    from lapse.commands import serve as command

    _end(command.add_token(name, role, expires, config))


@tokens_app.command("list")
def tokens_list(config: ConfigOption = None) -> None:
    """List the tokens' names and roles."""
    from lapse.commands import serve as command

    _end(command.list_tokens(config))


@tokens_app.command("revoke")
def tokens_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which program's token.")], config: ConfigOption = None
) -> None:
    """Revoke a token at once."""
    from lapse.commands import serve as command

    _end(command.revoke_token(name, config))


@playbooks_app.callback(invoke_without_command=True)
def playbooks(context: typer.Context, config: ConfigOption = None) -> None:
    """List the playbooks."""
    if context.invoked_subcommand is None:
        from lapse.commands import playbooks as command

        _end(command.run(config))


@playbooks_app.command("lint")
def playbooks_lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Playbooks in TOML.")], config: ConfigOption = None
) -> None:
    """Find the mistakes in playbooks, with file and line."""
    from lapse.commands import playbooks as command

    _end(command.check(files, config))


@playbooks_app.command("show", epilog=_examples("lapse playbooks show aws-access-key"))
def playbooks_show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The playbook's id.")], config: ConfigOption = None
) -> None:
    """Explain one playbook."""
    from lapse.commands import playbooks as command

    _end(command.show(name, config))


@playbooks_app.command(
    "successor", epilog=_examples("lapse playbooks successor aws-access-key -o oidc/ --set repository=acme/app")
)
def playbooks_successor(
    what: Annotated[str, typer.Argument(metavar="PLAYBOOK|RUN|KEY", help="What is to be replaced.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to; nothing there is overwritten.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A value that is not known of the key.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write the files that make a key unnecessary.

    Trust policy, workflow and commands for short-lived sessions; without -o, what they need is listed.
    """
    from lapse.commands import playbooks as command

    _end(command.successor(what, output, tuple(set_ or ()), config))


def _end(code: Exit, *, exit_zero: bool = False) -> NoReturn:
    raise typer.Exit(0 if exit_zero and code in {Exit.LIVE, Exit.UNDECIDED, Exit.WAITING} else int(code))


def main() -> None:
    """Run the command line; every trouble ends in one sentence on stderr and its exit code."""
    try:
        try:
            app(standalone_mode=True)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as e:  # noqa: BLE001  # the last resort: no traceback may quote a secret
        from lapse.ending import end

        sys.exit(end(e))


if __name__ == "__main__":
    main()
