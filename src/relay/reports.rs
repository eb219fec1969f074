//! Settings that servers report (ParameterStatus), on their way to clients.
//! Must never send one into the middle of an answer.

use super::client::State;
use super::{Client, ClientId, Relay, ServerId};
use crate::wire::frame::{HEADER, Header, cstr};

impl Relay {
    /// A server that clients share reports a setting that has changed for all sessions: these are told, of whose answers nothing has left.
    pub(super) fn lane_parameter(&mut self, server: ServerId, riders: impl Iterator<Item = ClientId>, bytes: &[u8]) {
        self.parameter(server, None, true, bytes);
        let Ok(Some(header)) = Header::peek(bytes, usize::MAX) else { return };
        let Some(message) = bytes.get(..header.total) else { return };
        for id in riders {
            let Some(client) = self.clients.get_mut(id).filter(|client| client.state == State::Riding(server)) else {
                continue;
            };
            client.send(message);
            client.notes_report(message);
        }
    }

    /// A server reports a setting; `owner` is told, unless that is swallowed.
    pub(super) fn parameter(&mut self, server: ServerId, owner: Option<ClientId>, swallow: bool, bytes: &[u8]) {
        let Some((name, rest)) = bytes.get(HEADER..).and_then(cstr) else { return };
        let Some((value, _)) = cstr(rest) else { return };
        if let Some(this) = self.servers.get_mut(server) {
            this.status.retain(|(known, _)| known != name);
            this.status.push((name.to_vec(), value.to_vec()));
        }
        if !swallow && let Some(id) = owner {
            self.clients.get_mut(id).into_iter().for_each(|client| client.notes_report(bytes));
            self.follow_reported(id, server, name, value);
        }
    }
}

impl Client {
    /// It was sent this ParameterStatus: whether backslashes in constants mean something has to be known here, too.
    fn notes_report(&mut self, message: &[u8]) {
        let setting = message.get(HEADER..).and_then(cstr);
        if let Some((b"standard_conforming_strings", rest)) = setting {
            self.conforming = rest.starts_with(b"on\0");
        }
    }
}
