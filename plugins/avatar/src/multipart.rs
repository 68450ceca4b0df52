//! `multipart/form-data`, read strictly and within bounds: what browsers and HTTP libraries send, and nothing more.

use nineteen_sdk::{Refusal, clip};

/// Parts of one body.
const MOST_PARTS: usize = 24;
/// Bytes of one part's header lines.
const MOST_HEADERS: usize = 4096;
/// Characters of a boundary, by RFC 2046.
const MOST_BOUNDARY: usize = 70;

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its name.
    pub name: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// Its bytes.
    pub data: &'a [u8],
}

fn bad(words: impl Into<String>) -> Refusal {
    Refusal::bad_request("invalid_body", format!("the form cannot be read: {}", words.into()))
}

/// Whether a media type is a form's.
#[must_use]
pub fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// The fields of a form, in order, each name once.
///
/// # Errors
/// A refusal that says what is wrong.
pub fn read<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, Refusal> {
    let mark = [b"--", boundary(content_type)?.as_bytes()].concat();
    let mut rest =
        body.strip_prefix(mark.as_slice()).ok_or_else(|| bad("it does not begin with its boundary"))?;
    let end = [b"\r\n", mark.as_slice()].concat();
    let mut parts: Vec<Part<'a>> = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b"--") {
            if !matches!(after, b"" | b"\r\n") {
                return Err(bad("there is something behind its end"));
            }
            return Ok(parts);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| bad("a boundary is no line of its own"))?;
        if parts.len() >= MOST_PARTS {
            return Err(bad(format!("it has more than {MOST_PARTS} fields")));
        }
        let (headers, body) = headers(rest)?;
        let at = find(body, &end).ok_or_else(|| bad("a field does not end"))?;
        let (data, after) = body.split_at_checked(at).ok_or_else(|| bad("a field does not end"))?;
        let (name, is_file) = disposition(headers)?;
        if parts.iter().any(|p| p.name == name) {
            return Err(bad(format!("the field `{}` is there twice", clip(&name, 40))));
        }
        parts.push(Part { name, is_file, data });
        rest = after.get(end.len()..).unwrap_or_default();
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    loop {
        let rest = hay.get(from..)?;
        let at = rest.iter().position(|b| b == first)?;
        if rest.get(at..)?.starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
}

fn boundary(content_type: &str) -> Result<String, Refusal> {
    let given = parameters(content_type).find(|(name, _)| name.eq_ignore_ascii_case("boundary"));
    let (_, boundary) = given.ok_or_else(|| bad("its media type names no boundary"))?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    if (1..=MOST_BOUNDARY).contains(&boundary.len())
        && boundary.bytes().all(allowed)
        && !boundary.ends_with(' ')
    {
        Ok(boundary)
    } else {
        Err(bad("its boundary is none"))
    }
}

/// `name=value` and `name="value"` behind the first semicolon; a backslash in quotes takes the next character as it is.
fn parameters(header: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_matches([' ', '\t', ';']).to_owned();
        let after = after.trim_start();
        let Some(quoted) = after.strip_prefix('"') else {
            let (value, left) = after.split_once(';').unwrap_or((after, ""));
            rest = left;
            return Some((name, value.trim().to_owned()));
        };
        let mut value = String::new();
        let mut letters = quoted.char_indices();
        loop {
            // A quote that never closes is no parameter.
            let (at, letter) = letters.next()?;
            match letter {
                '\\' => value.push(letters.next()?.1),
                '"' => {
                    rest = quoted.get(at + 1..).unwrap_or_default();
                    return Some((name, value));
                }
                other => value.push(other),
            }
        }
    })
}

/// Header lines, and what follows them.
fn headers(part: &[u8]) -> Result<(&str, &[u8]), Refusal> {
    let within = part.get(..MOST_HEADERS).unwrap_or(part);
    let at = find(within, b"\r\n\r\n").ok_or_else(|| bad("a field has no header, or a very long one"))?;
    let lines = part.get(..at).unwrap_or_default();
    let lines = std::str::from_utf8(lines).map_err(|_| bad("a field's header is no text"))?;
    Ok((lines, part.get(at + 4..).unwrap_or_default()))
}

/// A field's name, and whether it is a file.
fn disposition(headers: &str) -> Result<(String, bool), Refusal> {
    let mut found = None;
    for line in headers.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header line has no colon"))?;
        if name.eq_ignore_ascii_case("content-transfer-encoding")
            && !matches!(value.trim().to_ascii_lowercase().as_str(), "binary" | "8bit" | "7bit")
        {
            return Err(bad("a field is encoded; send bytes as they are"));
        }
        if name.eq_ignore_ascii_case("content-disposition") {
            let kind = value.split(';').next().unwrap_or_default().trim();
            if found.is_some() || !kind.eq_ignore_ascii_case("form-data") {
                return Err(bad("a field's disposition is not form-data"));
            }
            found = Some(value);
        }
    }
    let value = found.ok_or_else(|| bad("a field has no disposition"))?;
    let given: Vec<(String, String)> = parameters(value).take(8).collect();
    let of = |wanted: &str| given.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let is_file = of("filename").is_some() || of("filename*").is_some();
    match of("name") {
        Some((_, name)) if !name.is_empty() => Ok((name.clone(), is_file)),
        _ => Err(bad("a field has no name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=xYz";

    fn form(text: &str) -> Vec<u8> {
        text.replace('\n', "\r\n").into_bytes()
    }

    #[test]
    fn fields_and_files_are_read_as_they_were_sent() {
        let body = form(
            "--xYz\nContent-Disposition: form-data; name=\"prompt\"\n\na portrait\nwith two lines\n--xYz\n\
             content-disposition: form-data; name=image; filename=\"a \\\"b\\\";c.png\"\nContent-Type: image/png\n\n\
             \u{0}--xY\n--xY\n--xYz--\n",
        );
        let parts = read(TYPE, &body).unwrap();
        assert_eq!((parts[0].name.as_str(), parts[0].is_file), ("prompt", false));
        assert_eq!(parts[0].data, b"a portrait\r\nwith two lines");
        assert_eq!((parts[1].name.as_str(), parts[1].is_file), ("image", true));
        assert_eq!(parts[1].data, b"\0--xY\r\n--xY");
        assert!(read("multipart/form-data; boundary=\"xYz\"", &body).is_ok());
        assert_eq!(read(TYPE, b"--xYz--").unwrap(), []);
    }

    #[test]
    fn anything_else_is_refused() {
        let field = "Content-Disposition: form-data; name=\"a\"\n\n1\n";
        for body in [
            String::new(),
            "--xYz".to_owned(),
            "--xYz\n".to_owned(),
            format!("preamble\n--xYz\n{field}--xYz--"),
            format!("--xYz\n{field}--xYz--trailing"),
            format!("--xYz\n{field}--xYz"),
            format!("--xYz\n{field}--xYz\n{field}--xYz--"),
            format!("--xYz\n{}--xYz--", field.replace("name=\"a\"", "name=\"\"")),
            format!("--xYz\n{}--xYz--", field.replace("form-data", "attachment")),
            format!("--xYz\n{}--xYz--", field.replace("\"a\"", "\"a")),
            format!("--xYz\nContent-Transfer-Encoding: base64\n{field}--xYz--"),
            format!("--xYz\nno colon\n{field}--xYz--"),
            format!("--xYz\nX: {}\n{field}--xYz--", "x".repeat(5000)),
            "--xYz\n\n1\n--xYz--".to_owned(),
        ] {
            assert_eq!(read(TYPE, &form(&body)).unwrap_err().status, 400, "{body}");
        }
        let many: String =
            (0..30).map(|i| format!("--xYz\n{}", field.replace("\"a\"", &format!("\"a{i}\"")))).collect();
        assert!(read(TYPE, &form(&format!("{many}--xYz--"))).unwrap_err().message.contains("fields"));
        for media in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a\u{e9}\"",
        ] {
            assert!(read(media, b"----").is_err(), "{media}");
        }
        assert!(
            is_form(TYPE)
                && is_form("Multipart/Form-Data;boundary=x")
                && !is_form("multipart/mixed; boundary=x")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            media in "(multipart/form-data; ?)?(boundary=)?[\"a-zA-Z0-9;= \\\\\u{e9}]{0,20}",
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = read(&media, &body);
        }

        #[test]
        fn a_form_with_bytes_changed_is_read_or_refused(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut body = form("--xYz\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\n\nxx\n--xYz--\n");
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Ok(parts) = read(TYPE, &body) {
                prop_assert!(parts.len() <= 1);
            }
        }

        #[test]
        fn whatever_a_field_holds_comes_out_again(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let body = [&b"--q\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n"[..], &data, b"\r\n--q--\r\n"].concat();
            let holds_the_mark = data.windows(5).any(|w| w == b"\r\n--q");
            prop_assume!(!holds_the_mark);
            prop_assert_eq!(read("multipart/form-data; boundary=q", &body).unwrap()[0].data, data.as_slice());
        }
    }
}
