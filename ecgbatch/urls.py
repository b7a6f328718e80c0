"""The addresses of servers: as users write them, as drivers need them, and as they may be shown."""

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

HOST = r"(?:[^@/?#:,\[\]]*|\[[^@/?#\[\]]*\])(?::\d+)?"
REST = rf"(?P<hosts>{HOST}(?:,{HOST})*)(?P<path>/[^@?#]*)?(?:\?(?P<query>.*))?"
PROPER = re.compile(rf"(?P<scheme>[\w+]+)://(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?{REST}", re.DOTALL)
AS_TYPED = re.compile(rf"(?P<scheme>[\w+]+)://(?P<user>[^:/?#]*):(?P<password>.*)@{REST}", re.DOTALL)
"""A password with characters that a URL would write as %40 and the like: it ends at the last @."""

CERTIFICATE_CHECKS = ("required", "optional", "none")


def complete(url: str, password: str | None = None) -> str:
    """The URL of a server with its password quoted as drivers expect it; `password`, as it is, takes the URL's place.

    Raises ValueError for what is no URL of PostgreSQL or Redis. Its message has nothing of the URL in it.
    """
    found = PROPER.fullmatch(url) or AS_TYPED.fullmatch(url)
    if found is None:
        raise ValueError("it is not of the form SCHEME://USER:PASSWORD@HOST:PORT/NAME")
    if password is None:
        password = unquote(found["password"] or "")
    scheme = re.sub(r"^postgres(?=$|\+)", "postgresql", found["scheme"])
    user = quote(unquote(found["user"] or ""), safe="")
    secret = f":{quote(password, safe='')}" if password else ""
    hosts, path, query = found["hosts"], found["path"] or "", _checked(scheme, found["query"])
    if "," in hosts and scheme.startswith("postgresql"):  # SQLAlchemy takes several as options alone
        each = "&".join(f"host={quote(host, safe=':')}" for host in hosts.split(","))
        hosts, path, query = "", path or "/", f"{each}&{query}" if query else each
    return f"{scheme}://{user}{secret}{'@' if user or secret else ''}{hosts}{path}{'?' if query else ''}{query}"


def _checked(scheme: str, query: str | None) -> str:
    """The options of a URL; over TLS a Redis server has to show a valid certificate unless they say otherwise."""
    if scheme != "rediss":
        return query or ""
    options = dict(parse_qsl(query or "", keep_blank_values=True))
    check = options.setdefault("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if check not in CERTIFICATE_CHECKS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(CERTIFICATE_CHECKS)}")
    return urlencode(options | {"ssl_cert_reqs": check}, safe="/")


def without_password(url: str) -> str:
    """A complete URL, to be used with its password from elsewhere."""
    return re.sub(r"://([^:@/?#]*):[^@/?#]*@", lambda user: f"://{user[1]}@" if user[1] else "://", url)


def without_secrets(url: str) -> str:
    """The URL as it may be shown: passwords as ***, those among its options too."""
    proper = PROPER.fullmatch(url)
    if proper is not None and proper["password"]:
        shown = url[: proper.start("password")] + "***" + url[proper.end("password") :]
    else:
        shown = re.sub(r"(://[^:/?#]*):.+@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*password[^=&]*=)[^&]*", r"\1***", shown, flags=re.IGNORECASE)
