"""Settings as users, containers and Kubernetes give them."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from ecgbatch import urls
from ecgbatch.producer.services import environment
from ecgbatch.settings import EcgbatchError, Settings, load

OF_KUBERNETES = {
    "ECGBATCH_PORT": "tcp://10.0.0.7:80",
    "ECGBATCH_SERVICE_HOST": "10.0.0.7",
    "ECGBATCH_SERVICE_PORT": "80",
    "ECGBATCH_FLOWER_PORT": "tcp://10.0.0.8:5555",
    "ECGBATCH_FLOWER_PORT_5555_TCP": "tcp://10.0.0.8:5555",
    "ECGBATCH_FLOWER_PORT_5555_TCP_ADDR": "10.0.0.8",
    "ECGBATCH_REDIS_SERVICE_HOST": "10.0.0.9",
    "ECGBATCH_REDIS_SERVICE_PORT_REDIS": "6379",
    "ECGBATCH_REDIS_PORT": "tcp://10.0.0.9:6379",
    "ECGBATCH_REDIS_PORT_6379_TCP_PROTO": "tcp",
}
PASSWORDS = ["plain", "a@b", "a/b", "a#b", "a:b", "a%b", "a?b=c&d", "p@ss/w#rd:%?", "ä€ ", "[::1]", "'\";`$(x)", "\\"]


def test_another_process_has_the_same_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGBATCH_PROCESSES", "7")
    monkeypatch.setenv("ECGBATCH_REFUSE", "clipped")
    given = Settings(model_dir=Path("/m"), chunk_size=32, refuse="cropped")
    assert load(environment(given)) == given
    assert environment(given)["PATH"] == os.environ["PATH"]


def test_they_come_from_the_environment() -> None:
    given = load({"ECGBATCH_PROCESSES": "3", "ECGBATCH_MODEL_DIR": "/m", "ECGBATCH_MODEL": "", "PATH": "x"})
    assert (given.processes, given.model_dir, given.model) == (3, Path("/m"), None)
    given = load({"ECGBATCH_FLOWER_READ_ONLY": "true", "ECGBATCH_MIN_SECONDS": "2.5"})
    assert (given.flower_read_only, given.min_seconds) == (True, 2.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ECGBATCH_PROCESSES", "-1", "ECGBATCH_PROCESSES must be a whole number above zero, not '-1'"),
        ("ECGBATCH_FLOWER_READ_ONLY", "perhaps", "must be true or false"),
        ("ECGBATCH_MIN_SECONDS", "nan", "ECGBATCH_MIN_SECONDS must be a number above zero, not 'nan'"),
        ("ECGBATCH_DATABSE_URL", "x", "did you mean ECGBATCH_DATABASE_URL?"),
        ("ECGBATCH_CHUNKSIZE", "4", "did you mean ECGBATCH_CHUNK_SIZE?"),
        ("ECGBATCH_REDIS_PORT", "6379", "did you mean ECGBATCH_REDIS_URL?"),
        ("ECGBATCH_REDIS_URL", "amqp://u:secret@h", "must begin with redis://"),
        ("ECGBATCH_REDIS_URL", "redis://h:secret", "redis://USER:PASSWORD@HOST:6379/0"),
        ("ECGBATCH_REDIS_URL", "rediss://h/0?ssl_cert_reqs=secret", "required, optional, none"),
        ("ECGBATCH_DATABASE_URL", "secret", "sqlite:///FILE"),
        ("ECGBATCH_DATABASE_PASSWORD_FILE", "/not/there", "cannot read the password in /not/there: No such file"),
    ],
)
def test_what_does_not_fit_is_one_line_without_a_secret(name: str, value: str, message: str) -> None:
    database = {"ECGBATCH_DATABASE_URL": "postgresql://u@h/d"} if name.endswith("FILE") else {}
    with pytest.raises(EcgbatchError) as caught:
        load(database | {name: value})
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_url_may_come_with_the_end_of_its_line() -> None:
    given = load({"ECGBATCH_REDIS_URL": "redis://h/0\n", "ECGBATCH_DATABASE_URL": " sqlite:///a.db\n"})
    assert (given.redis_url, given.database_url) == ("redis://h/0", "sqlite:///a.db")


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [("a:1,b:2", "a,b", "1,2"), ("a,b:2", "a,b", ",2"), ("10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2", ",")],
)
def test_a_url_may_name_several_servers(hosts: str, host: str, port: str) -> None:
    given = Settings(database_url=f"postgres://me:p@s@{hosts}/d?target_session_attrs=read-write").database_url
    url = make_url(given).set(drivername="postgresql+psycopg")
    [_, options] = create_engine(url).dialect.create_connect_args(url)
    assert (options["host"], options.get("port", ","), options["password"]) == (host, port, "p@s")
    assert (options["dbname"], options["target_session_attrs"]) == ("d", "read-write")
    assert Settings(database_url=given).database_url == given


def test_what_kubernetes_sets_is_harmless() -> None:
    assert load(OF_KUBERNETES) == Settings()


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("typed", [str, quote], ids=["as it is", "quoted"])
def test_a_password_may_have_any_characters(password: str, typed: type[str]) -> None:
    url = urls.complete(f"postgres://me:{typed(password)}@db.example:5432/ecg?sslmode=require")
    parsed = make_url(url)
    assert (parsed.username, parsed.password, parsed.host, parsed.port) == ("me", password, "db.example", 5432)
    assert (parsed.drivername, parsed.database, parsed.query) == ("postgresql", "ecg", {"sslmode": "require"})
    assert urls.without_secrets(f"postgres://me:{typed(password)}@db/ecg") == "postgres://me:***@db/ecg"
    assert urls.complete(url) == url


@pytest.mark.parametrize("password", [*PASSWORDS, "50%41"])
def test_a_password_comes_from_a_file(tmp_path: Path, password: str) -> None:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    given = Settings(
        database_url="postgresql://me@h/d",
        database_password_file=file,
        redis_url="redis://old:other@h:1/0",
        redis_password_file=file,
        flower_password_file=file,
    )
    assert make_url(given.database_url).password == password
    assert given.redis_url == f"redis://old:{quote(password, safe='')}@h:1/0"
    assert given.flower_password == password


def test_an_empty_password_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    with pytest.raises(EcgbatchError, match="the file is empty"):
        Settings(flower_password_file=tmp_path / "password")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("redis://h:6379", "redis://h:6379"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("rediss://h", "rediss://h?ssl_cert_reqs=required"),
        ("rediss://h?ssl_ca_certs=/etc/ca.pem", "rediss://h?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h?ssl_cert_reqs=none"),
    ],
)
def test_certificates_are_asked_for_unless_the_url_says_otherwise(given: str, used: str) -> None:
    assert Settings(redis_url=given).redis_url == used
    assert Settings(redis_url=used).redis_url == used


def test_a_password_among_a_urls_options_is_not_shown() -> None:
    url = "postgresql://h/d?user=me&password=secret&sslpassword=secret&sslmode=require"
    assert urls.without_secrets(url) == "postgresql://h/d?user=me&password=***&sslpassword=***&sslmode=require"
    assert "secret" not in urls.without_secrets("nonsense://me:se/cret@secret@h")
