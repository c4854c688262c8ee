//! Bytes in, bytes out: what a request costs before a node looks up a coin, and what the ciphers
//! add, by size. Composing is the client's half, opening is the server's.

mod real_core;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raida::{
    coin::{An, Coin},
    protocol::{
        Command, Frame, Key, Protection, Request, RequestHeader, Response, Sealing, Status,
        authentication::Detect, frame, open,
    },
};
use real_core::{PAGES, coin_on, rules, set_pace};

/// A detect of this many coins, on as many pages.
fn payload(coins: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose(
        (0..coins).map(|i| coin_on(i * 7 % PAGES, i % 1_024)),
        &mut payload,
    );
    payload
}

fn request<'a>(protection: Protection, payload: &'a [u8]) -> Request<'a> {
    Request {
        to: rules().raida,
        coin_id: rules().coin_id,
        command: Command::Detect,
        protection,
        echo: [1, 2],
        challenge: [3; 12],
        nonce: [4; 22],
        payload: Some(payload),
    }
}

fn composed(protection: Protection, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sent = request(protection, payload).compose(&mut bytes);
    sent.expect("it is short enough");
    bytes
}

/// What a server does with a request's bytes before it looks at a coin.
fn read(bytes: &mut [u8], key: &Key) -> usize {
    let Frame::Whole { header, length } = frame(bytes, &rules()) else {
        panic!("the request is whole");
    };
    let body = &mut bytes[header.header_size()..length];
    let opened = open(&header, body, key, &rules()).expect("the request is right");
    let detect = Detect::parse(opened.payload).expect("the payload is right");
    detect.records().filter(|(coin, _)| coin.is_some()).count()
}

fn plain(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    set_pace(&mut group);
    for coins in [1, 100, 1_000] {
        let payload = payload(coins);
        group.throughput(Throughput::Elements(coins as u64));
        group.bench_function(BenchmarkId::new("compose", coins), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                request(Protection::None, black_box(&payload)).compose(&mut out)
            });
        });
        group.bench_function(BenchmarkId::new("parse", coins), |b| {
            // Nothing is decrypted, so the bytes stay as they are.
            let mut bytes = composed(Protection::None, &payload);
            b.iter(|| read(black_box(&mut bytes), &Key::None));
        });
    }
    group.finish();
}

fn response(c: &mut Criterion) {
    let mut group = c.benchmark_group("response");
    set_pace(&mut group);
    let bytes = composed(Protection::None, &payload(1));
    let Frame::Whole { header, .. } = frame(&bytes, &rules()) else {
        panic!("the request is whole");
    };
    group.bench_function("all pass", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            seal(&mut out, black_box(&header));
            out.len()
        });
    });
    group.finish();
}

fn seal(out: &mut Vec<u8>, header: &RequestHeader) {
    Response::begin(out, header).finish(Sealing {
        rules: &rules(),
        status: Status::ALL_PASS,
        key: &Key::None,
        challenge_answer: [5; 16],
        execution_micros: 0,
        nonce: [0; 22],
    });
}

/// Type 1 is CTR alone, type 4 is CTR and HMAC; a header and a plain body of the same size cost
/// what "parse" above says.
fn encrypted(c: &mut Criterion) {
    let (coin, an): (Coin, An) = coin_on(0, 0);
    let types = [
        ("type 1", Protection::Coin(coin, an)),
        ("type 4", Protection::CoinHmac(coin, an)),
    ];
    for (name, protection) in types {
        let mut group = c.benchmark_group(name);
        set_pace(&mut group);
        let key = protection.key();
        for coins in [1, 10, 100, 1_000] {
            let payload = payload(coins);
            let bytes = composed(protection, &payload);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(BenchmarkId::new("compose", bytes.len()), |b| {
                let mut out = Vec::new();
                b.iter(|| {
                    out.clear();
                    request(protection, black_box(&payload)).compose(&mut out)
                });
            });
            group.bench_function(BenchmarkId::new("open", bytes.len()), |b| {
                // Decrypted in place, so each needs bytes of its own.
                b.iter_batched_ref(
                    || bytes.clone(),
                    |bytes| read(bytes, &key),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, plain, response, encrypted);
criterion_main!(benches);
