"""TLS, SASL, authenticators and headers of a Collector's clients, as Tailrace's have them.

Each table says of one foreign component what its keys, or its kinds, are here. Sources: the Collector's configtls,
configkafka and the README of each extension. Secrets that the file holds do not pass (`Source.secret`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.configuration.otelcol.source import NONE, Source
from pipeline.configuration.yaml_tree import Key
from schemas.settings import is_loopback, is_secret_name

Keys = dict[str, Any]
"""What a sink, or `kafka.security`, has."""
Login = tuple[str, str]
"""A name and its password."""

FILES = ("ca_file", "cert_file", "key_file")
NAMED = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")  # mechanisms that take a name and a password
NOT_VERIFIED = "certificates are always verified; write `ca_file: …`, the authority (PEM) that signed the server's"
OTHER_NAME = ", and `verify_hostname: false` if they are of another name"
INTO_FILE = "not taken over: write it into a file, and `{}: …`"
TLS_INSTEAD = {  # keys of configtls
    "ca_pem": INTO_FILE.format("ca_file"),
    "cert_pem": INTO_FILE.format("cert_file"),
    "key_pem": INTO_FILE.format("key_file"),
    "insecure_skip_verify": f"{NONE}: {NOT_VERIFIED}",
    "server_name_override": f"{NONE}: the server's certificate must be of the name in its address",
    "include_system_ca_certs_pool": "not taken over: append the system's authorities to what `ca_file` names",
    "tpm": f"{NONE}: `key_file` is a file",
}
KAFKA_TLS_INSTEAD = TLS_INSTEAD | {
    "insecure_skip_verify": TLS_INSTEAD["insecure_skip_verify"] + OTHER_NAME,
    "server_name_override": "not taken over: write `verify_hostname: false`",
}
TOKEN_FILE = "a file with a token that something keeps current"
KAFKA_TOKEN = f"write `sasl_mechanism: OAUTHBEARER` and `token_file: …`, {TOKEN_FILE}"
SASL_INSTEAD = {  # mechanisms, and the one that has a block of its own
    "kerberos": f"{NONE}: `kafka.security` has PLAIN, SCRAM and OAUTHBEARER",
    "OAUTHBEARER": f"not taken over: {KAFKA_TOKEN}",
    "AWS_MSK_IAM": f"not taken over: {KAFKA_TOKEN}",
    "AWS_MSK_IAM_OAUTHBEARER": f"not taken over: {KAFKA_TOKEN}",
}
BY_TOKEN = f"is not taken over: write `auth: {{bearer_token_file: …}}` at the sink, {TOKEN_FILE}"
AUTHENTICATORS_INSTEAD = {
    "oauth2client": BY_TOKEN,
    "azure_auth": BY_TOKEN,
    "azureauth": BY_TOKEN,
    "googleclientauth": BY_TOKEN,
    "sigv4auth": "has no counterpart: send through a proxy that signs requests, and write its `endpoint`",
}
ELSE_AUTH = "is not taken over: write `auth: {…}` or `headers: {…}` at the sink"
SHOWN = ("x-scope-orgid", "user-agent", "accept", "content-type")  # headers whose values are nobody's secret
_USER = re.compile(
    r"(?P<scheme>[^/]*://)(?P<user>(?:\$\{[^}]*\}|[^:/?#])*)(?::(?P<password>(?:\$\{[^}]*\}|[^/?#])*))?@(?P<rest>.*)",
    re.S,
)
SHOWN_PARAMETERS = ("db", "rp", "precision", "consistency", "bucket", "org")  # InfluxDB's, likewise
_PARAMETER = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]+)")


def tls(source: Source, path: Key, given: Any, instead: Mapping[str, str] = TLS_INSTEAD) -> Keys:
    """The files of a client that has TLS; what is not taken over is told."""
    found: Keys = {}
    for key, value in source.mapping(path, given).items():
        if key in FILES:
            found |= {key: value} if value else {}
        elif key in instead:
            if value and not (isinstance(value, dict) and value.get("enabled") is not True):
                source.gap((*path, key), instead[key])
        elif key != "insecure":
            source.gap((*path, key), "not taken over: versions and ciphers are OpenSSL's", matters=False)
    return found


def is_plain(source: Source, path: Key, given: Any) -> bool:
    """Whether a client goes without TLS: `insecure` counts where no authority is named (configtls: LoadTLSConfig)."""
    block = source.mapping(path, given)
    return block.get("insecure") is True and not any(block.get(key) for key in ("ca_file", "ca_pem"))


def kafka_security(source: Source, path: Key, settings: Mapping[str, Any]) -> Keys:
    """`security` of a kafka receiver or exporter; empty if it has neither TLS nor SASL."""
    auth = source.mapping((*path, "auth"), settings.get("auth"))
    here: Key = (*path, "tls") if settings.get("tls") is not None else (*path, "auth", "tls")  # before 0.124
    block = auth.get("tls") if settings.get("tls") is None else settings["tls"]
    encrypted = block is not None and not is_plain(source, here, block)
    files = tls(source, here, block, KAFKA_TLS_INSTEAD) if encrypted else {}
    log_in = _sasl(source, (*path, "auth"), auth)
    protocol = ("SASL_" if log_in else "") + ("SSL" if encrypted else "PLAINTEXT")
    return {} if protocol == "PLAINTEXT" else {"protocol": protocol} | files | log_in


def _sasl(source: Source, path: Key, auth: Mapping[str, Any]) -> Keys:
    """How it logs in; empty where it does not, or not as we can."""
    if auth.get("kerberos"):
        source.gap((*path, "kerberos"), SASL_INSTEAD["kerberos"])
    kind = "sasl" if auth.get("sasl") else "plain_text"  # the latter before 0.123
    here: Key = (*path, kind)
    block = source.mapping(here, auth.get(kind))
    if not block:
        return {}
    mechanism = str(block.get("mechanism") or "") if kind == "sasl" else "PLAIN"
    if mechanism in NAMED or mechanism.startswith("${"):
        return {"sasl_mechanism": mechanism} | _credentials(source, here, block, {"username": "username"})
    name = str(block.get("oauthbearer_token_source") or "")
    if mechanism == "OAUTHBEARER" and name.split("/")[0] == "oauth2client" and source.has("extensions", name):
        return {"sasl_mechanism": mechanism} | _client_credentials(source, name)
    source.gap((*here, "mechanism"), SASL_INSTEAD.get(mechanism, f"{mechanism} {SASL_INSTEAD['kerberos']}"))
    return {}


def _client_credentials(source: Source, name: str) -> Keys:
    """An oauth2client extension, of which Kafka's client asks a token itself."""
    place: Key = ("extensions", name)
    given = source.component("extensions", name)
    found = {"client_id": given["client_id"]} if given.get("client_id") else {}
    if given.get("token_url"):
        found["token_endpoint_url"] = _parameters(source, (*place, "token_url"), str(given["token_url"]))
    if given.get("client_id_file"):
        found["client_id"] = f"${{file:{given['client_id_file']}}}"
    if given.get("client_secret_file"):
        found["client_secret"] = f"${{file:{given['client_secret_file']}}}"
    elif given.get("client_secret"):
        found["client_secret"] = source.secret((*place, "client_secret"), given["client_secret"])
    if scopes := source.listed((*place, "scopes"), given.get("scopes")):
        found["scope"] = " ".join(map(str, scopes))
    files = tls(source, (*place, "tls"), given.get("tls"))
    if "ca_file" in files:
        found["token_endpoint_ca_file"] = files["ca_file"]
    if "cert_file" in files:
        source.gap((*place, "tls", "cert_file"), f"{NONE}: the token endpoint is asked without a client certificate")
    if given.get("endpoint_params"):
        source.gap((*place, "endpoint_params"), f"{NONE}: {KAFKA_TOKEN}")
    return found


def secured(source: Source, path: Key, settings: Mapping[str, Any], urls: Iterable[str]) -> Keys:
    """`auth`, `headers` and the files of TLS of a sink that sends to `urls`."""
    found = _authenticator(source, path, settings)
    own = found.pop("headers", {})
    taken = {name.lower() for name in own} | ({"authorization"} if "auth" in found else set())
    headers = _headers(source, (*path, "headers"), settings.get("headers"), taken) | own
    found |= {"headers": headers} if headers else {}
    if not all(url.startswith("http://") for url in urls):
        found |= tls(source, (*path, "tls"), settings.get("tls"))
    return found


def in_the_clear(source: Source, path: Key, sink: Keys) -> None:
    """Say `allow_http` where a Collector sends credentials over http://: Tailrace wants to be told so."""
    urls = [sink["endpoint"]] if "endpoint" in sink else sink.get("endpoints", [])
    if ("auth" in sink or any(map(is_secret_name, sink.get("headers", ())))) and any(map(_is_readable, urls)):
        sink["auth"] = sink.get("auth", {}) | {"allow_http": True}
        why = "credentials go over http://, where anybody on the way reads them: `auth.allow_http: true` is said for it"
        source.gap(path, why, matters=False)


def _is_readable(url: Any) -> bool:
    try:
        found = urlsplit(str(url))
        return found.scheme == "http" and not is_loopback(found.hostname or "")
    except ValueError:  # `check` will say what is wrong with it
        return False


def _credentials(source: Source, path: Key, given: Mapping[str, Any], keys: Mapping[str, str]) -> Keys:
    """A name, whose key is in `keys`, and a password: what is in files is read from them."""
    found = {}
    for key, ours in (*keys.items(), ("password", "password")):
        if given.get(f"{key}_file"):
            found[ours] = f"${{file:{given[f'{key}_file']}}}"
        elif given.get(key) is not None and given[key] != "":
            found[ours] = source.secret((*path, key), given[key]) if ours == "password" else str(given[key])
    return found


def _headers(source: Source, path: Key, given: Any, taken: Collection[str]) -> dict[str, str]:
    """Headers as a mapping, but for those that the authenticator sets instead, in whatever case they are `taken`.

    Of those whose value is in the file, only values that are no secret are printed.
    """
    if isinstance(given, list):  # as the Collector takes them since 0.138, beside a mapping
        given = {str(each.get("name")): each.get("value") for each in given if isinstance(each, dict)}
    found = {}
    for name, value in ((str(name), value) for name, value in source.mapping(path, given).items()):
        if name.lower() in taken:
            source.gap((*path, name), "not taken over: the authenticator sets it", matters=False)
        else:
            found[name] = _header(source, path, name, value)
    return found


def _header(source: Source, path: Key, name: str, value: Any) -> str:
    text = "" if value is None else str(value)
    return text if not text or name.lower() in SHOWN else source.secret((*path, name), text)


def _authenticator(source: Source, path: Key, settings: Mapping[str, Any]) -> Keys:
    """What the extension that an exporter names adds to requests."""
    name = str(source.mapping((*path, "auth"), settings.get("auth")).get("authenticator") or "")
    if not name:
        return {}
    kind, here = name.split("/")[0], (*path, "auth")
    if kind in AUTHENTICATORS and source.has("extensions", name):
        return AUTHENTICATORS[kind](source, ("extensions", name), source.component("extensions", name))
    where = f"is not in the file: {ELSE_AUTH.partition(': ')[2]}" if kind in AUTHENTICATORS else ELSE_AUTH
    source.gap(here, f"{name} {AUTHENTICATORS_INSTEAD.get(kind, where)}")
    return {}


def _basic(source: Source, path: Key, given: Mapping[str, Any]) -> Keys:
    here: Key = (*path, "client_auth")
    block = source.mapping(here, given.get("client_auth"))
    if block.get("aws_secrets_manager"):
        why = "not taken over: write `auth: {username: …, password: …}` at the sink"
        source.gap((*here, "aws_secrets_manager"), why)
    found = _credentials(source, here, block, {"username": "username"})
    return {"auth": found} if found else {}


def _bearer(source: Source, path: Key, given: Mapping[str, Any]) -> Keys:
    scheme, header = given.get("scheme", "Bearer"), str(given.get("header") or "Authorization")
    file = given.get("filename")
    usual = scheme == "Bearer" and header.lower() == "authorization"
    if file and usual:
        return {"auth": {"bearer_token_file": file}}
    if not file and not given.get("token"):
        source.gap(path, "not taken over: write `auth: {bearer_token: …}` at the sink")
        return {}
    token = f"${{file:{file}}}" if file else source.secret((*path, "token"), given["token"])
    return {"auth": {"bearer_token": token}} if usual else {"headers": {header: f"{scheme or ''} {token}".strip()}}


def _set_headers(source: Source, path: Key, given: Mapping[str, Any]) -> Keys:
    found: dict[str, str] = {}
    for number, each in enumerate(source.listed((*path, "headers"), given.get("headers"))):
        here: Key = (*path, "headers", number)
        one = source.mapping(here, each)
        key, action = str(one.get("key")), one.get("action") or "upsert"
        if action in ("insert", "upsert") and one.get("value") is not None:
            found[key] = _header(source, here, key, one["value"])
        else:
            what = "differs by request" if "from_context" in one else f"with the action {action} {NONE}"
            source.gap(here, f"{key} {what}: write `headers: {{{key}: …}}` at the sink if all get the same")
    return {"headers": found} if found else {}


AUTHENTICATORS: dict[str, Callable[[Source, Key, Mapping[str, Any]], Keys]] = {
    "basicauth": _basic,
    "bearertokenauth": _bearer,
    "headers_setter": _set_headers,
}


def elastic_credentials(source: Source, path: Key, settings: Mapping[str, Any]) -> Keys:
    """Those that an exporter to Elasticsearch has itself."""
    if settings.get("api_key"):
        return {"api_key": source.secret((*path, "api_key"), settings["api_key"])}
    return _credentials(source, path, settings, {"user": "username"})


def address(source: Source, path: Key, url: Any) -> tuple[str, Login | None]:
    """A URL without its login, and that; of parameters only those that are no secret are printed."""
    text, login = str(url), None
    if found := _USER.fullmatch(text):
        text = found["scheme"] + found["rest"]
        if found["password"]:
            login = unquote(found["user"]), unquote(found["password"])
        elif found["user"]:
            source.gap(path, "the name in it is not taken over: write `auth: {…}` at the sink")
    return _parameters(source, path, text), login


def log_in(source: Source, path: Key, logins: Collection[Login], auth: Keys, headers: Iterable[str]) -> Keys:
    """`auth` of a sink, or the first login of its URLs if neither that nor a header is one; others are told."""
    by_header = any(name.lower() == "authorization" for name in headers)
    for user, password in logins:
        known = source.variables.get(password)
        if not auth and not by_header:
            auth = {"username": user, "password": source.secret((*path, "password"), password)}
        elif auth != {"username": user, "password": f"${{env:{known}}}" if known else password}:
            source.gap(path, "a login in it is not taken over: a sink has one for all, see its `auth` or `headers`")
    return auth


def _parameters(source: Source, path: Key, url: str) -> str:
    def parameter(found: re.Match[str]) -> str:
        shown = found[1].lower() in SHOWN_PARAMETERS
        return found[0] if shown else f"{found[1]}={source.secret((*path, found[1]), found[2])}"

    return _PARAMETER.sub(parameter, url)
