"""What the tables of a provider's file must say together: faults that no table shows by itself."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from receiver.providers.capabilities import CallbackScope, CancelScope
from receiver.providers.declared.file_form import (
    OF_LIST,
    OF_PROOF,
    OF_SUBMIT,
    OF_TASK,
    CallTable,
    ProofTable,
    ProviderFile,
)
from receiver.providers.declared.templates import Template

KeyFault = tuple[tuple[str, ...], str]
"""The path of a key, and what is wrong with it."""
_HEADER = "header."


def faults_of(file: ProviderFile) -> Iterator[KeyFault]:
    """Yield the faults, each with the key that it is about."""
    yield from _auth_faults(file)
    yield from _call_faults(file)
    yield from _capability_faults(file)
    yield from _download_faults(file)
    if file.webhook is not None:
        yield from _proof_faults(file, file.webhook.proof)


def _auth_faults(file: ProviderFile) -> Iterator[KeyFault]:
    known = file.credentials
    if file.auth.by == "header":
        yield from _place_faults(("auth", "value"), file.auth.value, known)
    if file.auth.by == "jwt":
        if file.auth.key is None:
            yield ("auth",), "by jwt: key must name the credential that signs"
        for name in ("issuer", "key"):
            credential = getattr(file.auth, name)
            if credential is not None and credential not in known:
                yield ("auth", name), f"{credential} is not in credentials: {', '.join(known)}"
    if file.auth.by == "bearer" and file.auth.key is not None and file.auth.key not in known:
        yield ("auth", "key"), f"{file.auth.key} is not in credentials: {', '.join(known)}"


def _call_faults(file: ProviderFile) -> Iterator[KeyFault]:
    calls: dict[str, tuple[CallTable | None, tuple[str, ...]]] = {
        "submit": (file.submit, (*OF_SUBMIT, "reference")),
        "look": (file.look, OF_TASK),
        "result": (file.result, (*OF_TASK, *(file.result.values if file.result else ()))),
        "cancel": (file.cancel, OF_TASK),
        "list": (file.list, OF_LIST),
        "find": (file.find, ("reference", *OF_SUBMIT)),
        "account": (file.account, ()),
    }
    for name, (call, known) in calls.items():
        if call is not None:
            if not (call.path.text.startswith("/") or _is_own(file, call.path.text)):
                yield (name, "path"), "must begin with /, or be an https URL on one of hosts"
            if {"?", "#"} & set(call.path.text):
                yield (name, "path"), "is a path alone: what would follow a ? belongs to query"
            yield from _place_faults((name, "path"), call.path, known)
            for table, texts in (("query", call.query), ("headers", call.headers)):
                for key, text in texts.items():
                    yield from _place_faults((name, table, key), text, known)


def _is_own(file: ProviderFile, url: str) -> bool:
    """Return whether a URL is one to which the key may be sent."""
    try:
        parts, base = urlsplit(url), urlsplit(file.base_url)
    except ValueError:
        return False
    return parts.scheme == "https" and parts.netloc in {*file.hosts, base.netloc}


def _download_faults(file: ProviderFile) -> Iterator[KeyFault]:
    download = file.download
    if download is None:
        if file.look.file_types:
            yield ("look", "file_types"), "needs a table [download]: the address of the file is the output"
        return
    if file.result is not None:
        yield ("download",), "either it or [result]: the output is what one of them says"
    if not download.path.text.startswith("/") or "#" in download.path.text:
        yield ("download", "path"), "must begin with /, and have no #"
    yield from _place_faults(("download", "path"), download.path, ("id", *download.values))


def _capability_faults(file: ProviderFile) -> Iterator[KeyFault]:
    can = file.capabilities
    if can.callback == CallbackScope.TASK and file.submit.callback is None:
        yield ("submit",), 'callback is missing: say where the address for webhooks goes, or set callback = "none"'
    if can.callback != CallbackScope.TASK and file.submit.callback is not None:
        yield ("submit", "callback"), 'needs callback = "task" in [capabilities]'
    if can.callback != CallbackScope.NONE and file.webhook is None:
        yield ("capabilities", "callback"), "needs a table [webhook]"
    if can.callback == CallbackScope.NONE and file.webhook is not None:
        yield ("webhook",), 'needs callback = "task" or "account" in [capabilities]'
    if can.callback == CallbackScope.ACCOUNT and file.webhook is not None and file.webhook.proof.by == "none":
        yield ("webhook",), "one address for all tasks needs a proof: anyone could send to it"
    if (can.cancels == CancelScope.NONE) != (file.cancel is None):
        yield ("capabilities", "cancels"), "needs a table [cancel], and a table [cancel] needs it"
    if file.list is not None and file.task.input is None and file.task.webhook_url is None:
        yield ("list",), "needs task.input or task.webhook_url: a task in it is recognised as ours by nothing else"
    if file.find is not None and file.submit.reference is None:
        yield ("find",), "needs submit.reference: nothing else tells the provider our reference"


def _proof_faults(file: ProviderFile, proof: ProofTable) -> Iterator[KeyFault]:
    place = ("webhook", "proof")
    if proof.by == "none":
        return
    if proof.by in ("standard", "hmac"):
        known = (*file.credentials, *file.optional_credentials)
        if proof.secret is None:
            yield place, "secret is missing: the name of the credential that has it"
        elif proof.secret not in known:
            yield (*place, "secret"), f"{proof.secret} is in neither credentials nor optional_credentials"
        elif proof.secret in file.optional_credentials and not proof.optional:
            yield (*place, "secret"), "is an optional credential, so the proof needs optional = true"
    if proof.by == "ed25519" and proof.jwks is None:
        yield place, "jwks is missing: where the provider's public keys are"
    if proof.jwks is not None and not (proof.jwks.startswith("/") or _is_own(file, proof.jwks)):
        yield (*place, "jwks"), "must begin with /, or be an https URL on one of hosts"
    if proof.by != "standard":
        if proof.header is None:
            yield place, "header is missing: the one that has the signature"
        if proof.timestamp_header is None and proof.timestamp_field is None:
            yield place, "timestamp_header or timestamp_field is missing: a signature without a time could be repeated"
        if not {"body", "body_sha256"} & set(proof.signed.names) or "timestamp" not in proof.signed.names:
            yield (*place, "signed"), "must have {timestamp}, and {body} or {body_sha256}"
        named = tuple(name for name in proof.signed.names if name.startswith(_HEADER) and len(name) > len(_HEADER))
        yield from _place_faults((*place, "signed"), proof.signed, (*OF_PROOF, *named))


def _place_faults(path: tuple[str, ...], text: Template, known: tuple[str, ...]) -> Iterator[KeyFault]:
    try:
        text.check(known)
    except ValueError as error:
        yield path, str(error)
