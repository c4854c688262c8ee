use crate::protocol::Status;

/// What to do about a refusal that a load meets and a client does not. It is printed after the
/// status.
pub(super) fn next_step(status: Status) -> &'static str {
    match status {
        Status::NO_TICKET_SLOT | Status::HEALING_NO_TICKET_SLOT => {
            "; ask more slowly, or start it with a larger tickets.pool, all of it for one address (tickets.shares = 1), any number for one coin (tickets.per_coin = 0), or a shorter tickets.lifetime_s"
        }
        Status::TOO_MANY_REQUESTS => "; ask more slowly, or start it with limits.healing_per_s = 0",
        Status::ASK_OVER_TCP => {
            "; leave --udp away, or start it with a larger network.udp_amplification"
        }
        _ => "",
    }
}
