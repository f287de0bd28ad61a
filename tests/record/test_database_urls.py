"""URLs of databases: passwords in them appear nowhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.errors import SlimsearchError
from slimsearch.record.shared.storage import database_errors, masked, normalised, without_password
from tests.conftest import Run

WORDS = st.text("abcXYZ019:/@&?=%+~.#", min_size=6, max_size=12)
# Each with {} for the password, which is written as it is.
FORMS = (
    "postgresql://user:{}@host/database", "postgresql+psycopg://user:{}@host:5432/database?sslmode=require",
    "mysql+pymysql://:{}@host/database", "user:{}@host/database",
)  # fmt: skip
PARAMETERS = ("password", "sslpassword", "passwd", "PassWord", "oauth_client_secret", "token")


@settings(deadline=None)  # imports SQLAlchemy
@given(WORDS, st.sampled_from(FORMS))
def test_a_password_before_the_host_is_masked_however_it_is_written(secret: str, form: str) -> None:
    secret = f"Q{secret}Q"
    assert masked(form.format(secret)) == form.format("***")


@pytest.mark.parametrize(
    "url", ["postgresql://user@host:5432/d?sslmode=require", "mysql+pymysql://host/d", "sqlite:////home/a.db"]
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert masked(url) == url


@settings(deadline=None)  # imports SQLAlchemy
@given(WORDS, st.sampled_from(PARAMETERS), st.booleans())
def test_a_password_among_the_parameters_is_masked_and_not_kept(secret: str, name: str, user: bool) -> None:
    secret = quote(f"Q{secret}Q", safe="")
    url = f"postgresql://{'user:Qother@' if user else ''}host/database?sslmode=require&{name}={secret}&a=b"
    for shown in (masked(url), without_password(url)):
        assert "Q" not in shown
        assert "sslmode=require" in shown
        assert "a=b" in shown


@pytest.mark.parametrize(
    "parameter",
    [
        "options=-c%20password%3DQuiet", "options=-c+secret%3DQ", "x=1;password=Quiet", "connect=UID%3Da;PWD%3DQuiet",
        "api_key=Quiet", "apikey=Q", "key=Quiet", "SharedAccessKey=Quiet",
    ],
)  # fmt: skip
def test_a_password_in_a_parameter_of_another_name(parameter: str) -> None:
    url = f"postgresql://host/database?sslmode=require&{parameter}&sslkey=a.pem&application_name=compass"
    for shown in (masked(url), without_password(url)):
        assert "Q" not in shown
        assert all(one in shown for one in ("sslmode=require", "sslkey=a.pem", "application_name=compass"))


@pytest.mark.parametrize("url", ["postgresql://user:Qse@cret@host/d", "postgresql://user:Q@@/host/d?passwd=Q"])
def test_an_unescaped_at_sign_is_refused(url: str) -> None:
    with pytest.raises(SlimsearchError, match="%40") as refused:
        normalised(url)
    assert "Q" not in str(refused.value)


def test_what_a_driver_quotes_is_masked() -> None:
    from sqlalchemy.exc import OperationalError

    url = "postgresql+psycopg://user:Q%40uiet@host/database?sslpassword=Qother"
    message = 'connection failed: missing "=" after "Q@uiet" in "Q%40uiet Qother"'
    with pytest.raises(SlimsearchError) as refused, database_errors(url):
        raise OperationalError("", {}, Exception(message))
    assert "Q" not in str(refused.value)


@pytest.mark.parametrize("words", [[], ["--log", "tensorbord"], ["--compress", "prun"], ["--print-config"]])
def test_no_command_shows_or_writes_it(run: Run, tmp_path: Path, words: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/none/study.db?sslpassword=Qsecret"
    done = run("--space", "tiny_cnn", "--dataset", "digits", "--storage", url, *words)
    assert "Qsecret" not in done.stdout + done.stderr
    assert not any(b"Qsecret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_nothing_is_joined_before_everything_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    base = ("--space", "tiny_cnn", "--dataset", "digits", "--storage", f"sqlite:///{tmp_path}/study.db")
    for words in (
        ["--run-dir", "taken"],
        ["--compress", "prun"],
        ["--strategy", "nni-random", "--run-dir", "a"],
        ["--objectives", "val_accuracy,energy:min", "--run-dir", "b"],
    ):
        done = run(*base, *words)
        assert done.returncode == 2
        assert not (tmp_path / "study.db").exists(), words
