//! What a miner can do to a validator's socket, over real loopback connections, and the class it ends in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{client, miner, serve};
use nineteen_domain::ledger::{Failure, ProbeClass};
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Ending, Exchange, Phase, Request};
use nineteen_wire::auth::{self, BtAuth};
use nineteen_wire::{Client, ClientConfig, Keypair, Parts, Scheme as _, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LIMITS: ReplyLimits = ReplyLimits {
    connect_ms: 500,
    first_byte_ms: 400,
    idle_ms: 300,
    total_ms: 1500,
    body_bytes: 256 << 10,
    chunks: 64,
    event_bytes: 4 << 10,
    header_bytes: 8 << 10,
};

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

fn request(streamed: bool) -> Request {
    Request {
        path: "/v1/chat/completions".into(),
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{\"a\":1}"),
        streamed,
    }
}

/// What a client sees of a miner that writes `pieces`, a pause before each, and then closes or hangs.
async fn against(streamed: bool, pieces: Vec<(u64, Vec<u8>)>, hang: bool) -> (Exchange, Duration) {
    let mut tasks = JoinSet::new();
    let pieces = Arc::new(pieces);
    let target = serve(&mut tasks, move |mut stream, _| {
        let pieces = Arc::clone(&pieces);
        async move {
            for (pause, piece) in pieces.iter() {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                if stream.write_all(piece).await.is_err() {
                    return;
                }
            }
            if hang {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        }
    })
    .await;
    let started = Instant::now();
    let listed = ["retry-after".to_owned(), "Content-Type".to_owned()];
    let x = client().post(&target, &request(streamed), &LIMITS, &listed).await;
    (x, started.elapsed())
}

fn text(s: impl Into<String>) -> Vec<u8> {
    s.into().into_bytes()
}

fn repeated(times: usize, pause: u64, piece: &str) -> Vec<(u64, Vec<u8>)> {
    vec![(pause, text(piece)); times]
}

fn failed(x: &Exchange) -> Failure {
    match ProbeClass::of(x) {
        ProbeClass::Failed(f) => f,
        other => panic!("{other:?}: {x:?}"),
    }
}

#[tokio::test]
async fn a_whole_reply_is_read_with_its_listed_headers_and_rising_stamps() {
    let pieces = vec![
        (60, text(SSE.replace("\r\n\r\n", "\r\nretry-after: 3\r\nx-secret: 1\r\n\r\n"))),
        (0, text("data: a\n\n")),
        (100, text("data: b\n\n")),
        (100, text("data: [DONE]\n\n")),
    ];
    let (x, _) = against(true, pieces, false).await;
    assert_eq!(ProbeClass::of(&x), ProbeClass::Answered);
    assert_eq!(x.body(), b"data: a\n\ndata: b\n\ndata: [DONE]\n\n");
    assert_eq!(
        x.headers,
        [("retry-after".into(), "3".into()), ("content-type".into(), "text/event-stream".into())]
    );
    let stamps: Vec<u64> = x.chunks.iter().map(|c| c.at_us).collect();
    assert_eq!(stamps.len(), 3, "{stamps:?}");
    assert!(
        stamps[0] >= 50_000 && stamps[1] >= stamps[0] + 80_000 && stamps[2] >= stamps[1] + 80_000,
        "{stamps:?}"
    );
    assert!(x.ended_us >= stamps[2]);
}

#[tokio::test]
async fn a_chunk_is_what_one_read_brought_however_http_framed_it() {
    let mut framed = text("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for byte in "data: abc\n\n".bytes() {
        framed.extend_from_slice(format!("1\r\n{}\r\n", byte as char).as_bytes());
    }
    let (x, _) = against(
        true,
        vec![(0, framed), (50, text("c\r\ndata: defg\n\n\r\n")), (50, text("0\r\n\r\n"))],
        true,
    )
    .await;
    assert_eq!(ProbeClass::of(&x), ProbeClass::Answered);
    let chunks: Vec<_> = x.chunks.iter().map(|c| c.data.as_ref()).collect();
    assert_eq!(chunks, [b"data: abc\n\n".as_slice(), b"data: defg\n\n"]);
}

#[tokio::test]
async fn a_busy_consumer_does_not_shift_the_stamps() {
    // The client's own task is not polled for 350 ms, longer than the idle limit, while bytes lie in the
    // socket. What was read before keeps its time, and our pause is not taken for the miner's.
    let mut tasks = JoinSet::new();
    let target = serve(&mut tasks, |mut stream, _| async move {
        stream.write_all(SSE.as_bytes()).await.unwrap();
        stream.write_all(b"data: a\n\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(b"data: b\n\n").await.unwrap();
    })
    .await;
    let (client, request) = (client(), request(true));
    let mut post = Box::pin(client.post(&target, &request, &LIMITS, &[]));
    assert!(tokio::time::timeout(Duration::from_millis(100), post.as_mut()).await.is_err());
    tokio::time::sleep(Duration::from_millis(350)).await;
    let x = post.await;
    assert_eq!(ProbeClass::of(&x), ProbeClass::Answered, "{x:?}");
    assert!(x.chunks[0].at_us < 100_000, "{x:?}");
}

#[tokio::test]
async fn a_rate_limited_stream_is_a_429_not_a_failure() {
    let reply = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 20\r\n\r\n{\"error\":{}}        ";
    for (reply, hang) in
        [(reply, false), (&reply[..reply.len() - 12], false), (&reply[..reply.len() - 12], true)]
    {
        let (x, _) = against(true, vec![(0, text(reply))], hang).await;
        assert_eq!(ProbeClass::of(&x), ProbeClass::RateLimited);
        assert_eq!(x.headers, [("retry-after".into(), "7".into())]);
    }
}

#[tokio::test]
async fn a_dripping_stream_ends_at_idle_because_unfinished_events_are_no_progress() {
    let mut pieces = vec![(0, text(SSE))];
    pieces.extend(repeated(40, 30, "d"));
    let (x, took) = against(true, pieces, true).await;
    assert_eq!(failed(&x), Failure::IdleTimeout);
    assert!(took < Duration::from_millis(900), "{took:?}");
    for keep_alive in [": ping\n\n", "\n\n", "data:\n\n", "event: x\n\n"] {
        let mut pieces = vec![(0, text(SSE))];
        pieces.extend(repeated(40, 30, keep_alive));
        assert_eq!(failed(&against(true, pieces, true).await.0), Failure::IdleTimeout, "{keep_alive:?}");
    }
}

#[tokio::test]
async fn an_endless_stream_ends_at_its_total() {
    let mut pieces = vec![(0, text(SSE))];
    pieces.extend(repeated(100, 50, "data: x\n\n"));
    let (x, took) = against(true, pieces, true).await;
    assert_eq!(failed(&x), Failure::TotalTimeout);
    assert!(took < Duration::from_millis(2200), "{took:?}");
    // A flood that never lets the timer speak ends by size.
    let flood = text("data: x\n\n".repeat(20_000));
    let (x, _) = against(true, vec![(0, text(SSE)), (0, flood.clone()), (0, flood)], true).await;
    assert_eq!(failed(&x), Failure::TooLarge);
    assert!(x.body_len() <= 256 << 10);
}

#[tokio::test]
async fn a_gigabyte_is_not_read() {
    let (x, took) =
        against(false, vec![(0, text("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"))], true).await;
    assert_eq!((failed(&x), x.status), (Failure::TooLarge, 200));
    assert!(took < Duration::from_millis(300), "not waited for: {took:?}");
    let mut tasks = JoinSet::new();
    let target = serve(&mut tasks, |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..1024 {
            if stream.write_all(&block).await.is_err() {
                return;
            }
        }
    })
    .await;
    let x = client().post(&target, &request(false), &LIMITS, &[]).await;
    assert_eq!(failed(&x), Failure::TooLarge);
    assert_eq!(x.body_len(), 256 << 10);
}

#[tokio::test]
async fn headers_have_an_end_or_the_reply_has() {
    let bomb = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(failed(&against(false, vec![(0, text(bomb))], true).await.0), Failure::TooLarge);
    let many: String = (0..500).map(|i| format!("h{i}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    assert_eq!(failed(&against(false, vec![(0, text(many))], true).await.0), Failure::TooLarge);
    let mut endless = vec![(0, text("HTTP/1.1 200 OK\r\n"))];
    endless.extend(repeated(100, 20, "x: y\r\n"));
    assert_eq!(failed(&against(false, endless, true).await.0), Failure::FirstByteTimeout);
    let hundreds = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000);
    assert_eq!(failed(&against(false, vec![(0, text(hundreds))], true).await.0), Failure::TooLarge);
}

#[tokio::test]
async fn a_coded_reply_is_refused_unread() {
    for header in
        ["content-encoding: gzip", "content-encoding: identity, br", "transfer-encoding: gzip, chunked"]
    {
        let reply = format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n\x1f\u{8b}");
        let (x, _) = against(false, vec![(0, text(reply))], false).await;
        assert_eq!((failed(&x), x.body_len()), (Failure::Refused, 0), "{header}");
    }
    let plain = "HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(ProbeClass::of(&against(false, vec![(0, text(plain))], false).await.0), ProbeClass::Answered);
}

#[tokio::test]
async fn a_redirect_is_a_status_and_is_not_followed() {
    let mut tasks = JoinSet::new();
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = trap.local_addr().unwrap();
    let target = serve(&mut tasks, move |mut stream, _| async move {
        let reply = format!("HTTP/1.1 307 T\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(reply.as_bytes()).await.unwrap();
    })
    .await;
    let x = client().post(&target, &request(false), &LIMITS, &[]).await;
    assert_eq!((failed(&x), x.status), (Failure::Status, 307));
    assert!(tokio::time::timeout(Duration::from_millis(100), trap.accept()).await.is_err());
}

#[tokio::test]
async fn what_breaks_off_is_disconnected() {
    for (reply, streamed) in [
        ("", false),
        ("HTTP/1.1 200 OK\r\ncontent-le", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", true),
    ] {
        let (x, _) = against(streamed, vec![(20, text(reply))], false).await;
        assert_eq!(failed(&x), Failure::Disconnected, "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    for reply in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "HTTP/1.1 two OK\r\n\r\n",
    ] {
        let (x, _) = against(false, vec![(0, text(reply))], true).await;
        assert_eq!((failed(&x), x.status), (Failure::Refused, 0), "{reply:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = Target { addr: closed, hotkey: miner().hotkey() };
    assert_eq!(failed(&client().post(&target, &request(false), &LIMITS, &[]).await), Failure::Refused);
}

#[tokio::test]
async fn an_event_that_never_completes_is_too_large_and_so_is_a_flood_of_chunks() {
    let mut pieces = vec![(0, text(SSE))];
    pieces.push((0, text(format!("data: {}", "x".repeat(8 << 10)))));
    assert_eq!(failed(&against(true, pieces, true).await.0), Failure::TooLarge);
    let mut pieces = vec![(0, text(SSE))];
    pieces.extend(repeated(200, 2, "data: x\n\n"));
    let (x, _) = against(true, pieces, true).await;
    assert_eq!(failed(&x), Failure::TooLarge);
    assert_eq!(x.chunks.len(), 64);
}

#[tokio::test]
async fn silence_is_a_first_byte_timeout_and_a_slow_body_is_idle() {
    let (x, _) = against(false, vec![], true).await;
    assert_eq!((failed(&x), x.ending), (Failure::FirstByteTimeout, Ending::Timeout(Phase::FirstByte)));
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let (x, _) = against(false, vec![(0, text(head))], true).await;
    assert_eq!(failed(&x), Failure::FirstByteTimeout);
    let (x, _) = against(false, vec![(0, text(format!("{head}{{")))], true).await;
    assert_eq!(failed(&x), Failure::IdleTimeout);
    // Of a JSON body every read is progress.
    let mut pieces = vec![(0, text(head))];
    pieces.extend(repeated(10, 100, "x"));
    assert_eq!(ProbeClass::of(&against(false, pieces, false).await.0), ProbeClass::Answered);
}

#[tokio::test]
async fn a_connection_that_never_stands_is_a_connect_timeout() {
    // A listener whose queue is full takes no more connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(addr)).await
    {
        held.push(stream);
        assert!(held.len() < 64);
    }
    let target = Target { addr, hotkey: miner().hotkey() };
    let x = client().post(&target, &request(false), &LIMITS, &[]).await;
    assert_eq!(failed(&x), Failure::ConnectTimeout);
}

#[tokio::test]
async fn a_private_address_is_not_even_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { addr: listener.local_addr().unwrap(), hotkey: miner().hotkey() };
    let client = Client::new(ClientConfig::new(Arc::new(Keypair::from_seed([1; 32]))));
    assert_eq!(failed(&client.post(&target, &request(false), &LIMITS, &[]).await), Failure::Refused);
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_200_with_an_error_inside_is_answered_and_left_to_the_plugin() {
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"error\":{}}";
    assert_eq!(ProbeClass::of(&against(false, vec![(0, text(reply))], false).await.0), ProbeClass::Answered);
    let (x, _) = against(false, vec![(0, text("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"))], false).await;
    assert_eq!((failed(&x), x.status), (Failure::Status, 500));
}

#[tokio::test]
async fn dropping_a_request_closes_its_connection() {
    let mut tasks = JoinSet::new();
    let (gone, mut is_gone) = tokio::sync::mpsc::channel(1);
    let target = serve(&mut tasks, move |mut stream, _| {
        let gone = gone.clone();
        async move {
            let n = stream.read(&mut [0; 16]).await.unwrap_or(0);
            gone.send(n).await.unwrap();
        }
    })
    .await;
    let (client, request) = (client(), request(true));
    let post = client.post(&target, &request, &LIMITS, &[]);
    assert!(tokio::time::timeout(Duration::from_millis(100), post).await.is_err());
    assert_eq!(is_gone.recv().await, Some(0));
}

#[tokio::test]
async fn what_is_sent_verifies_once_for_this_miner_and_looks_the_same_every_time() {
    let mut tasks = JoinSet::new();
    let (sent, mut received) = tokio::sync::mpsc::channel(8);
    let target = serve(&mut tasks, move |mut stream, request| {
        let sent = sent.clone();
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            sent.send(request).await.unwrap();
        }
    })
    .await;
    let mut shapes = Vec::new();
    let verifier = BtAuth::default();
    for _ in 0..2 {
        client().post(&target, &request(false), &LIMITS, &[]).await;
        let raw = received.recv().await.unwrap();
        let text = String::from_utf8(raw).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut headers = http::HeaderMap::new();
        let mut names = Vec::new();
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ").unwrap();
            names.push(name.to_owned());
            headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        shapes.push(names);
        assert_eq!(headers["accept-encoding"], "identity");
        let parts = Parts {
            method: "POST",
            path_and_query: "/v1/chat/completions",
            body: body.as_bytes(),
            receiver: Some(miner().hotkey()),
        };
        let now = auth::now_ns();
        assert_eq!(verifier.verify(&headers, &parts, now).unwrap(), Keypair::from_seed([1; 32]).hotkey());
        assert!(verifier.verify(&headers, &parts, now).is_err());
    }
    assert_eq!(shapes[0], shapes[1]);
}

#[tokio::test]
async fn an_announcement_costs_at_most_its_own_miner() {
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let announce = |c: &str| ok(&format!(r#"{{"protocol":"nineteen/1","period_s":60,"capacities":{c}}}"#));
    for (reply, hang, code) in [
        (announce(r#"{"a":1,"b":null}"#), false, "ok"),
        (announce(r#"{"a":NaN}"#), false, "wire.announce.format"),
        (announce(&"[".repeat(50_000)), false, "wire.announce.format"),
        (ok("hello"), false, "wire.announce.format"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n".into(), true, "wire.announce.too-long"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100 << 20)), true, "wire.announce.too-long"),
        ("HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n".into(), false, "wire.announce.transport"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".into(), true, "wire.announce.too-slow"),
    ] {
        let mut tasks = JoinSet::new();
        let reply = Arc::new(reply);
        let target = serve(&mut tasks, move |mut stream, request| {
            let reply = Arc::clone(&reply);
            async move {
                assert!(request.starts_with(b"GET /nineteen/v1/capacity?period_s=60 HTTP/1.1\r\n"));
                let _ = stream.write_all(reply.as_bytes()).await;
                if hang {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
            }
        })
        .await;
        let got = client().capacity(&target, 60).await;
        assert_eq!(got.as_ref().map_or_else(|e| e.code(), |_| "ok"), code, "{got:?}");
        if let Ok(a) = got {
            assert_eq!(a.of("a"), Ok(1.0));
            assert!(a.of("b").is_err() && a.of("c").is_err());
        }
    }
}
