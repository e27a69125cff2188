"""Complete responses as bytes: any status, with valid, odd or contradictory heads and bodies."""

from __future__ import annotations

from hypothesis import strategies as st
from inputs import categories, pages, skills, spelled

_STATUSES = st.one_of(
    st.sampled_from([200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 404, 405, 408, 409, 422, 429, 500, 503]),
    st.integers(100, 999),
)
_DATES = (
    b"Thu, 19 Feb 2026 12:00:00 GMT",
    b"Thu, 19 Feb 2026 12:00:00 -0000",
    b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Mon, 01 Jan 0001 00:00:00 +2359",
    b"Mon, 01 Jan 99999999999 00:00:00 GMT",
    b"Mon, 01 Jan 2026 00:00:00 +999999999999999",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
)
_PLACES = (b"/", b"", b"//[::1", b"http://[::g]/", b"?\xff", b"http://evil.example.org/", b"#", b"//x:y", b"/a b")
_PARTS_OF_PLACES = (
    *(
        b"http:",
        b"https:",
        b"HTTP:",
        b"data:,",
        b"mailto:",
        b"a:",
        b"javascript:",
        b"//",
        b"/",
        b"\\",
        b"?",
        b"#",
        b"@",
    ),
    *(
        b"127.0.0.1",
        b"localhost",
        b"[::1]",
        b"[",
        b"]",
        b":",
        b":0",
        b":99999",
        b"%",
        b"%00",
        b"%2e",
        b"..",
        b"\t",
        b"x",
    ),
    *(b"\xff", b"\xc3\xbc", b"user:pass@", b"0x7f.1", b"2130706433", b"xn--", b"\xe3\x80\x82", b"a" * 3000),
)


def places(*others: bytes) -> st.SearchStrategy[bytes]:
    """Draw the target of a redirect: from parts of addresses, and these other ones."""
    parts = st.lists(st.sampled_from([*_PARTS_OF_PLACES, *others]), max_size=6).map(b"".join)
    return st.one_of(st.sampled_from(_PLACES), parts)


_PLAIN = st.binary(max_size=30).map(lambda value: bytes(each for each in value if each >= 32 and each != 127).strip())
_NUMBERS = st.sampled_from(
    [b"0", b"1", b"-1", b"9" * 400, b"\xb2", b"1e9", b"nan", b"0x10", b" 7 ", b"1, 2", b"60;w=1"]
)
_HEADERS = {
    b"Date": st.sampled_from(_DATES),
    b"Retry-After": st.one_of(_NUMBERS, st.sampled_from(_DATES)),
    b"ETag": st.sampled_from([b'"x"', b'W/"x"', b'"\xff"', b'"\xc3\xbc"', b"", b"*", b'"' + b"x" * 9000 + b'"']),
    b"Location": places(),
    b"X-RateLimit-Limit": _NUMBERS,
    b"X-RateLimit-Remaining": _NUMBERS,
    b"X-RateLimit-Reset": _NUMBERS,
    b"Content-Encoding": st.sampled_from([b"gzip", b"zstd", b"br", b"identity", b"\xff", b"gzip, gzip"]),
    b"Content-Length": st.sampled_from([b"0", b"5", b"99999999999999999999", b"-1", b"5, 5", b"x"]),
    b"Transfer-Encoding": st.sampled_from([b"chunked", b"gzip, chunked", b"x"]),
    b"Content-Type": _PLAIN,
    b"X-Other": _PLAIN,
}
_BODIES = st.one_of(
    pages(),
    categories(),
    skills.map(lambda value: spelled(value, 1).encode()),
    st.sampled_from([b"", b"{}", b'{"rating_id":"7"}', b'{"skills":[],"total":0}', b"5\r\n{}   \r\n0\r\n\r\n"]),
)


_INTERIM = st.sampled_from([100, 102, 103, 199, 101]).flatmap(
    lambda status: st.integers(0, 12).map(lambda times: (b"HTTP/1.1 %d Wait\r\nLink: </x>\r\n\r\n" % status) * times)
)
_VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2", b"http/1.1", b"HTTP/1.1 ", b"ICY", b""])
_ODD_LINES = st.sampled_from(
    [
        b" folded",
        b"\tfolded",
        b"No-Colon",
        b": no name",
        b"A b: c",
        b"A : c",
        b"A: \x00",
        b"A:\rb",
        b"A" * 70_000 + b": 1",
    ]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Draw a response with an odd head: interim responses before it, invalid lines, repeated headers."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=8))
    lines = [name + b": " + draw(_HEADERS[name]) for name in names for _ in range(draw(st.sampled_from([1, 1, 2, 40])))]
    lines += draw(st.lists(_ODD_LINES, max_size=2))
    status = draw(
        st.sampled_from([b"200 OK", b"200", b"304 x", b"0200 OK", b"99 x", b"1000 x", b"-1 x", b"", b"\xb2 x"])
    )
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"]))
    head = end.join([draw(_VERSIONS) + b" " + status, *draw(st.permutations(lines)), b"", b""])
    return draw(_INTERIM) + head + draw(_BODIES)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a response."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=6))
    lines = [b"HTTP/1.1 %d Whatever" % draw(_STATUSES)]
    lines += [name + b": " + draw(_HEADERS[name]) for name in names]
    return b"\r\n".join([*lines, b"", draw(_BODIES)])
