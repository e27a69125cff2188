"""Whole answers as bytes: any status, with heads and bodies that are right, odd, or contradict each other."""

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
_PLAIN = st.binary(max_size=30).map(lambda value: bytes(each for each in value if each >= 32 and each != 127).strip())
_NUMBERS = st.sampled_from(
    [b"0", b"1", b"-1", b"9" * 400, b"\xb2", b"1e9", b"nan", b"0x10", b" 7 ", b"1, 2", b"60;w=1"]
)
_HEADERS = {
    b"Date": st.sampled_from(_DATES),
    b"Retry-After": st.one_of(_NUMBERS, st.sampled_from(_DATES)),
    b"ETag": st.sampled_from([b'"x"', b'W/"x"', b'"\xff"', b'"\xc3\xbc"', b"", b"*", b'"' + b"x" * 9000 + b'"']),
    b"Location": st.sampled_from(_PLACES),
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


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer as it goes over the wire."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=6))
    lines = [b"HTTP/1.1 %d Whatever" % draw(_STATUSES)]
    lines += [name + b": " + draw(_HEADERS[name]) for name in names]
    return b"\r\n".join([*lines, b"", draw(_BODIES)])
