use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::client::{Client, ClientError, Options, Transport};
use crate::protocol::{Command, Status};

/// The way to a node beside the measured connections: for work before a turn and after the last one
/// that is not measured.
#[derive(Clone, Copy, Debug)]
pub struct SideDoor {
    /// The node.
    pub node: SocketAddr,
    /// The connection's options.
    pub options: Options,
}

/// Work done through a [`SideDoor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Coins are put into lockers, to be looked at or taken out.
    Store,
    /// Coins are put up for sale, to be listed or bought.
    Offer,
    /// Coins are taken out of lockers, so that they can be stored or put up for sale again.
    TakeOut,
    /// Offers are taken back, so that their coins can be used again.
    TakeBack,
}

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
pub enum ChoreError {
    /// The node did not answer.
    #[error("{chore}: {cause}")]
    Client {
        /// The chore.
        chore: Chore,
        /// What is wrong.
        cause: ClientError,
    },
    /// The node did not do it.
    #[error("{chore}: the node says \"{status}\"{next}", next = next_step(*.status))]
    NotDone {
        /// The chore.
        chore: Chore,
        /// The node's status.
        status: Status,
    },
}

impl std::fmt::Display for Chore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Chore::Store => "cannot put coins into lockers before they are asked about",
            Chore::Offer => "cannot put coins up for sale before they are asked about",
            Chore::TakeOut => "cannot take coins out of lockers for the next turn",
            Chore::TakeBack => "cannot take offers back",
        })
    }
}

fn next_step(status: Status) -> &'static str {
    match status {
        Status::UNKNOWN_CURRENCY => {
            "; it has to take cloudcoin for lockers: start it with that in trade.currencies"
        }
        Status::PAYMENT_PENDING => {
            "; it has to count every purchase as paid: start it with trade.settlement = \"trusted\""
        }
        _ => "",
    }
}

impl SideDoor {
    /// Requests under way at a time: enough that a node has many changes for each of its commits.
    pub(super) const IN_FLIGHT_MAX: usize = 64;
    /// Number of connections that they are spread over: a node carries out the requests of one
    /// connection one after the other where they change coins of several shards.
    const CONNECTIONS_MAX: usize = 16;

    /// Asks for each of these, a limited number at a time. `take` hears each result, in their
    /// order: `None` where there is no usable answer, so that it may have been done. It hears
    /// nothing of those that were never sent. After an error nothing more is sent.
    ///
    /// # Errors
    /// The first request without an answer, or with a status other than 241 for which `take` says
    /// that the chore was not done.
    pub(super) fn ask<T>(
        &self,
        chore: Chore,
        at_once: usize,
        tasks: &[T],
        mut compose: impl FnMut(&T, &mut Vec<u8>) -> Command,
        mut take: impl FnMut(&T, Option<Status>) -> bool,
    ) -> Result<(), ChoreError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let failed = |cause| ChoreError::Client { chore, cause };
        let host = self.node.ip().to_string();
        // New connections each time: a server closes an idle connection after a while.
        let count = at_once.min(Self::CONNECTIONS_MAX).min(tasks.len());
        let connect = || Client::connect((&host, self.node.port()), Transport::Tcp, self.options);
        let clients: Result<Vec<Client>, _> = (0..count).map(|_| connect()).collect();
        let mut clients = clients.map_err(failed)?;
        let mut error = None;
        let mut payload = Vec::new();
        // Each connection answers in order, and the connections take turns: so answers come in the
        // order of tasks.
        let mut under_way: VecDeque<(&T, usize)> = VecDeque::with_capacity(at_once);
        let mut tasks = tasks.iter().zip((0..count).cycle());
        loop {
            while error.is_none()
                && under_way.len() < at_once
                && let Some((task, client)) = tasks.next()
            {
                payload.clear();
                let command = compose(task, &mut payload);
                match (clients[client].connection()).send(command, Some(&payload)) {
                    Ok(()) => under_way.push_back((task, client)),
                    Err(cause) => {
                        if cause.leaves_doubt() {
                            take(task, None);
                        }
                        error = Some(failed(cause));
                    }
                }
            }
            let Some((task, client)) = under_way.pop_front() else {
                return error.map_or(Ok(()), Err);
            };
            let found = match clients[client].connection().receive() {
                Ok(reply) => match take(task, Some(reply.status)) {
                    true => None,
                    false => Some(ChoreError::NotDone {
                        chore,
                        status: reply.status,
                    }),
                },
                Err(cause) => {
                    take(task, None);
                    Some(failed(cause))
                }
            };
            error = error.or(found);
        }
    }
}
