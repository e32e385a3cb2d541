"""The forms that browsers send."""

from receiver.dashboard.forms import multipart_fields


def test_a_form_of_several_parts_is_read_as_it_was_sent() -> None:
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = (
        part.format("csrf", "t")
        + part.format("run", '{"a": "\r\n--y\u00e4"}')
        + part.format("csrf", "last")
        + "--x--\r\n"
    )
    assert multipart_fields(body.encode(), b"x") == {"csrf": "last", "run": '{"a": "\r\n--y\u00e4"}'}
    for broken in (b"", b"--x", b"--x--", body.encode()[:30], b"--x\r\n\r\nno name\r\n--x--"):
        assert multipart_fields(broken, b"x") == {}
