"""The cookies a browser, an attacker or a proxy sends: ours is found, whatever stands beside it, and only ours."""

import itertools
import logging
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_wsgi.cookies import read_cookie
from tests.support.browsing import Site, read, write

pytest_plugins = ["tests.support.site_fixtures"]

NAME = "prism_session"


def oracle(header: str, name: str) -> list[str]:
    """RFC 6265bis 4.2.1, read once more: pairs between semicolons, white space is space and tab."""
    found = []
    for pair in header.split(";"):
        key, equals, value = pair.strip(" \t").partition("=")
        if equals and key == name and value.strip(" \t"):
            found.append(value.strip(" \t"))
    return list(dict.fromkeys(found))


@given(st.lists(st.sampled_from(["sid", "a", "SID", "=", ";", " ", "\t", ",", '"', "\x00", "\xa0", "\x85", "%3D"])))
def test_the_reader_agrees_with_a_plain_reading_of_the_grammar(pieces: list[str]) -> None:
    header = "".join(pieces)
    assert read_cookie(header, "sid") == oracle(header, "sid")


def test_a_blank_before_the_equals_sign_is_not_the_cookie_whatever_the_value() -> None:
    assert read_cookie("sid =one; sid\t=sid=two; sid=three", "sid") == ["three"]


def test_a_cookie_is_found_among_others() -> None:
    assert read_cookie("session=abc; theme=dark", "session") == ["abc"]
    assert read_cookie("session=abc; theme=dark", "theme") == ["dark"]
    assert read_cookie("session=abc; session=abc; session=d", "session") == ["abc", "d"]
    assert read_cookie("session=abc; session=abc", "session") == ["abc"]
    assert read_cookie("", "session") == []
    assert read_cookie("theme=dark", "session") == []


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        "theme=dark; {}",
        "{}; theme=dark",
        "theme=dark;{}",
        "theme=dark;\t{}\t; x",
        ";;; {} ;;;",
        "a; {}",
        "=b; {}",
        'a={{"b":"c"}}; {}',
        'a="unterminated; {}',
        '{}; a="unterminated',
        "a=b=c=d; {}",
        "a=\xe4\xf6\xfc; {}",
        "\x85=\xff; {}",
        "a=\x00; {}",
        "$Version=1; {}; $Path=/",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT; {}",
        "xprism_session=evil; prism_sessionx=evil; {}",
        "PRISM_SESSION=evil; {}",
        "prism%5Fsession=evil; {}",
        '"prism_session"=evil; {}',
        "prism_session; {}",
        "prism_session=; {}",
    ],
)
def test_what_stands_beside_our_cookie_does_not_hide_it(site: Site, header: str) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    page = browser.visit(read("n"), HTTP_COOKIE=header.format(browser.cookie_header))
    assert page.result == 1
    assert page.all("Set-Cookie") == []


@given(noise=st.text(st.characters(max_codepoint=255), max_size=40), before=st.booleans())
def test_no_noise_hides_our_cookie(noise: str, before: bool) -> None:
    ours = f"{NAME}=ours"
    header = f"{noise}; {ours}" if before else f"{ours}; {noise}"
    assert "ours" in read_cookie(header, NAME)


@pytest.mark.parametrize(
    "header",
    [
        "a=b,{name}={token}",
        "a=b, {name}={token}",
        "a=b {name}={token}",
        "a=b\x00{name}={token}",
        "a=b\x0b{name}={token}",
        "a=b\n{name}={token}",
        "a=b&{name}={token}",
        "\xa0{name}={token}",
        "\x85{name}={token}",
        "\x0c{name}={token}",
        '"{name}={token}"',
        'a="; b={name}={token}"',
        "{name}\xa0={token}",
        "{name} ={token}",
        "{name}=\xa0{token}",
        "{name}={token}\x85",
        "{name}={token}\x0b",
        '{name}="{token}"',
        "{name}=={token}",
        "{name}={token}, x=y",
        "{name}={quoted}",
        "{upper}={token}",
        "__Host-{name}={token}",
        " ={name}={token}",
    ],
)
def test_what_is_not_exactly_our_cookie_opens_nothing(site: Site, header: str) -> None:
    """WebOb, http.cookies and others read several of these as the session cookie (CVE-2020-8184, CVE-2023-23934)."""
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    quoted = quote(browser.token).replace(".", "%2E")
    sent = header.format(name=NAME, token=browser.token, quoted=quoted, upper=NAME.upper())
    assert site.browser().visit(read("n"), HTTP_COOKIE=sent).result is None
    assert site.calls == []


@pytest.mark.parametrize("joined", ["theme=dark,{}", "theme=dark, {}"])
def test_two_cookie_lines_joined_by_a_server_count_as_no_session(site: Site, joined: str) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    page = browser.visit(read("n"), HTTP_COOKIE=joined.format(browser.cookie_header))
    assert page.status == 200
    assert page.result is None
    assert all("Max-Age=0" not in line for line in page.all("Set-Cookie"))


@pytest.mark.parametrize("place", [{"QUERY_STRING": "{}"}, {"HTTP_X_SESSION": "{}"}, {"HTTP_AUTHORIZATION": "{}"}])
def test_the_token_counts_in_the_cookie_only(site: Site, place: dict[str, str]) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    sent: dict[str, Any] = {name: value.format(browser.cookie_header) for name, value in place.items()}
    assert site.browser().visit(read("n"), path=f"/;{browser.cookie_header}", **sent).result is None


# Several cookies of our name: another host of the domain, or a script, may have planted one ("cookie tossing")


def tokens(site: Site) -> tuple[str, str]:
    ours, theirs = site.browser(), site.browser()
    ours.visit(write(name="ours"))
    theirs.visit(write(name="theirs"))
    return ours.token, theirs.token


def test_a_forged_duplicate_cannot_hide_ours_whatever_the_order(site: Site) -> None:
    ours, _ = tokens(site)
    garbage = ["garbage", ours[:-1] + ("A" if ours[-1] != "A" else "E"), "x" * 500, ""]
    for order in itertools.permutations([ours, *garbage[:2], garbage[3]]):
        header = "; ".join(f"{NAME}={value}" for value in order)
        assert site.browser().visit(read("name"), HTTP_COOKIE=header).result == "ours"


def test_any_amount_of_malformed_duplicates_cannot_hide_ours(site: Site) -> None:
    ours, _ = tokens(site)
    noise = "; ".join(f"{NAME}={number}" for number in range(500))
    assert site.browser().visit(read("name"), HTTP_COOKIE=f"{noise}; {NAME}={ours}; {noise}").result == "ours"


def test_two_different_valid_cookies_are_both_refused_with_one_event(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prism_wsgi")
    pair = tokens(site)
    site.calls.clear()
    for order in itertools.permutations([*pair, "garbage"]):
        caplog.clear()
        header = "; ".join(f"{NAME}={value}" for value in order)
        page = site.browser().visit(read("name"), HTTP_COOKIE=header)
        assert page.result is None
        assert page.all("Set-Cookie") == []  # it would push out the visitor's own
        assert [record.reason for record in caplog.records] == ["duplicate_cookie"]  # type: ignore[attr-defined]
    assert site.calls == []


def test_the_same_cookie_twice_is_one(site: Site) -> None:
    ours, _ = tokens(site)
    header = f"{NAME}={ours}; {NAME}={ours}"
    assert site.browser().visit(read("name"), HTTP_COOKIE=header).result == "ours"


def test_two_cookies_of_one_session_are_one_session(site: Site) -> None:
    browser = site.browser()
    browser.visit()
    early = browser.cookie_header
    browser.visit(write(name="ours"))
    late = browser.cookie_header
    assert early != late
    for header in (f"{early}; {late}", f"{late}; {early}"):
        assert site.browser().visit(read("name"), HTTP_COOKIE=header).result == "ours"


def test_an_expired_duplicate_does_not_count(site: Site) -> None:
    old, new = site.browser(), site.browser()
    old.visit(write(name="old"))
    site.clock.advance(3000)
    new.visit(write(name="new"))
    site.clock.advance(3000)
    header = f"{NAME}={old.token}; {NAME}={new.token}"
    assert site.browser().visit(read("name"), HTTP_COOKIE=header).result == "new"


def test_at_most_four_candidates_are_verified(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = tokens(site)
    verified = []
    signer = site.middleware.site.cookies.signer
    monkeypatch.setattr(type(signer), "verify", lambda self, value: verified.append(value))
    forged = "; ".join(f"{NAME}={number:043}{ours[43:]}" for number in range(300))
    site.browser().visit(HTTP_COOKIE=forged)
    assert len(verified) <= 4


def test_one_valid_cookie_among_four_candidates_is_used(site: Site) -> None:
    ours, _ = tokens(site)
    forged = "; ".join(f"{NAME}={number:043}{ours[43:]}" for number in range(3))
    assert site.browser().visit(read("name"), HTTP_COOKIE=f"{forged}; {NAME}={ours}").result == "ours"


def test_of_two_cookies_of_one_session_the_fresher_counts(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(name="ours"))
    early = browser.cookie_header
    site.clock.advance(1000)
    browser.visit(read("name"))
    late = browser.cookie_header
    assert early != late
    for header in (f"{early}; {late}", f"{late}; {early}"):
        page = site.browser().visit(read("name"), HTTP_COOKIE=header)
        assert (page.result, page.all("Set-Cookie")) == ("ours", [])


def test_the_reason_why_none_of_several_cookies_is_used_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prism_wsgi")
    pair = tokens(site)
    forged = [f"{number:043}{pair[0][43:]}" for number in range(5)]

    def reasons(*values: str) -> list[str]:
        caplog.clear()
        header = "; ".join(f"{NAME}={value}" for value in values)
        assert site.browser().visit(read("name"), HTTP_COOKIE=header).result is None
        return [record.__dict__["reason"] for record in caplog.records]

    assert reasons(*forged[:2]) == ["forged"]
    assert reasons(*forged) == ["duplicate_cookie"]
    site.clock.advance(10**6)
    assert reasons(*pair) == ["expired"]


# Hostile sizes and bytes


HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "\x00",
    "x" * 1_000_000,
    "." * 1000,
    "é" * 43 + ".0." + "é" * 43,
    "A" * 43 + ".0." + "\xff" * 43,
    "A" * 43 + ".٣." + "A" * 43,
    "A" * 43 + ".00." + "A" * 43,
    "A" * 43 + ".99999999999." + "A" * 43,
    "A" * 43 + ".999999999999." + "A" * 43,
    "A" * 43 + ".0." + "A" * 43,
    "A" * 43 + ".0." + "A" * 43 + "\n",
    "'; DROP TABLE prism_sessions; --",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: value[:20].encode("unicode_escape").decode())
def test_a_hostile_cookie_costs_no_store_call_and_no_error(site: Site, value: str) -> None:
    sent = value.encode("utf-8").decode("latin-1")
    page = site.browser().visit(read("n"), HTTP_COOKIE=f"{NAME}={sent}")
    assert page.status == 200
    assert page.result is None
    assert site.calls == []


def test_a_byte_beyond_ascii_anywhere_in_the_token_is_a_clean_refusal(site: Site) -> None:
    """`hmac.compare_digest` raises TypeError for text that is not ASCII."""
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    token = browser.token
    for position in range(len(token)):
        for byte in "\x80\xa0\xff":
            damaged = token[:position] + byte + token[position + 1 :]
            assert site.browser().visit(read("n"), HTTP_COOKIE=f"{NAME}={damaged}").result is None
    assert site.calls == []


@pytest.mark.parametrize(
    "piece",
    ["; ", f"{NAME}=; ", f"{NAME}=x; ", "a=b; ", '"\\', f"{NAME} ", f"{NAME}={'A' * 43}.0.{'A' * 43}; ", "=" * 10],
)
def test_time_grows_with_the_header_and_no_faster(site: Site, piece: str) -> None:
    def seconds(size: int) -> float:
        header = (piece * (size // len(piece) + 1))[:size]
        runs = []
        for _ in range(5):
            began = time.thread_time()  # other processes may have the CPU meanwhile
            read_cookie(header, NAME)
            runs.append(time.thread_time() - began)
        return min(runs)

    assert seconds(262_144) < 8 * max(seconds(65_536), 0.0005)


def test_the_largest_header_a_server_lets_through_is_answered(site: Site) -> None:
    numbered = "; ".join(f"{NAME}={number}" for number in range(12_000))[:262_144]
    assert site.browser().visit(read("n"), HTTP_COOKIE=numbered).status == 200
    assert site.calls == []


def test_a_cookie_that_goes_missing_at_any_point_is_a_new_visitor(site: Site) -> None:
    steps = [
        write(n=1),
        lambda session: session.login("ann"),
        write(m=2),
        lambda session: session.logout(),
        read("n"),
    ]
    for lost_before in range(len(steps)):
        browser = site.browser()
        for number, step in enumerate(steps):
            if number == lost_before:
                browser.jar.cookies.clear()
                assert browser.visit(lambda session: (session.is_new, dict(session))).result == (True, {})
            assert browser.visit(step).status == 200


def test_nothing_but_space_and_tab_is_trimmed() -> None:
    for code in {*range(256)} - {*b" \t;"}:
        value = f"{chr(code)}v{chr(code)}"
        assert read_cookie(f"a=b; \t{NAME}= \t{value} \t; c=d", NAME) == [value]
