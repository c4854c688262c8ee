//! A recorded conversation with an existing server, `tests/data/conversation.jsonl`, held again
//! with a node that starts from the same coins, `tests/data/coins.csv`. A step's fields: name;
//! transport (udp, or tcp with one connection a step); request (hex, `${x}` stands for bytes saved
//! earlier); response (hex, `??` is not compared); save {"x": [offset, length]}.

use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr},
};

use crate::real_node::{RealNode, coin_list, wire::Wire};
use raida::protocol::ResponseCounter;

#[derive(Clone)]
struct Step {
    name: String,
    transport: String,
    request: String,
    response: String,
    save: Vec<(String, usize, usize)>,
}

fn steps() -> Vec<Step> {
    let step = |line: &str| {
        let step: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |field: &str| step[field].as_str().expect("a text").to_owned();
        let save = step["save"].as_object().into_iter().flatten();
        Step {
            name: text("name"),
            transport: text("transport"),
            request: text("request"),
            response: text("response"),
            save: save
                .map(|(name, place)| {
                    let number = |at: usize| place[at].as_u64().expect("a number") as usize;
                    (name.clone(), number(0), number(1))
                })
                .collect(),
        }
    };
    include_str!("../data/conversation.jsonl")
        .lines()
        .map(step)
        .collect()
}

impl Step {
    /// The request's bytes, with what earlier steps saved put in.
    fn bytes(&self, saved: &HashMap<String, String>) -> Vec<u8> {
        let mut digits = self.request.clone();
        for (name, value) in saved {
            digits = digits.replace(&format!("${{{name}}}"), value);
        }
        assert_eq!(
            digits.len() % 2,
            0,
            "{}: something was not saved",
            self.name
        );
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn is_as_recorded(&self, answer: &[u8]) -> bool {
        let digits = hex(answer);
        let mut both = digits.chars().zip(self.response.chars());
        digits.len() == self.response.len() && both.all(|(got, want)| want == '?' || got == want)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn exchange(node: SocketAddr, transport: &str, request: &[u8]) -> Vec<u8> {
    let mut wire = match transport {
        "tcp" => Wire::tcp(node),
        "udp" => Wire::udp(node),
        other => panic!("no such transport: {other}"),
    };
    wire.send(request);
    if let Wire::Tcp(stream) = &wire {
        // What comes is all that comes: an answer that is too long shows as well.
        stream
            .shutdown(Shutdown::Write)
            .expect("an open connection");
    }
    wire.receive_all()
}

fn converse(shards: u16, response_counter: ResponseCounter) {
    let coins = coin_list("coins.csv");
    let mut node = RealNode::start(&coins, |settings| {
        settings.shards = shards;
        settings.rules.response_counter = response_counter;
    });
    let mut saved = HashMap::new();
    for step in steps() {
        let request = step.bytes(&saved);
        let answer = exchange(node.address(), &step.transport, &request);
        for (name, offset, length) in &step.save {
            // As in the recording's own replayer: zeros where there is nothing to save.
            let bytes = answer.get(*offset..offset + length);
            saved.insert(name.clone(), bytes.map_or("00".repeat(*length), hex));
        }
        assert!(
            step.is_as_recorded(&answer),
            "{shards} shards: {:?}\n  got  {}\n  want {}",
            step.name,
            hex(&answer),
            step.response
        );
    }
    node.stop();
}

#[test]
fn one_shard_answers_as_recorded() {
    converse(1, ResponseCounter::Restart);
    converse(1, ResponseCounter::Continue);
}

#[test]
fn two_shards_answer_as_recorded() {
    converse(2, ResponseCounter::Restart);
}

#[test]
fn three_shards_answer_as_recorded() {
    converse(3, ResponseCounter::Continue);
}
