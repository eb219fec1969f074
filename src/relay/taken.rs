//! Messages about a statement whose name the client has in use, and how errors will call it.
//! Must never prepare anything that the client would find under the name.

use std::rc::Rc;

use super::attach::NO_STATEMENT;
use super::forward::{Message, Outgoing, Taken};
use super::names::hashed;
use super::prepared::Found;
use super::statements::Statement;
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::wire::frame::HEADER;

impl Relay {
    /// A Parse of a name that is in use: PostgreSQL answers 42P05 once the text has turned out to be one
    /// that could be prepared now. It will if the same name of a server's is prepared twice: that of the
    /// name's statement if it is there, else one that this very text is given in front.
    #[allow(clippy::too_many_arguments, reason = "the parts of one message, taken apart by its only caller")]
    pub(super) fn parse_taken(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        name: &[u8],
        text: Option<(&[u8], Found)>,
        taken: &Rc<Statement>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        self.count_parse(server);
        let Some(this) = self.servers.get_mut(server) else { return Taken::More };
        this.tick += 1;
        let there = this.prepared.touch(taken.id, this.tick);
        let number = match text {
            Some((tail, found)) if !there => {
                let alone = self.statements.alone(tail, found.under, found.look);
                self.make_room(id, server, tail.len(), message.at, out);
                self.prepare_first(id, server, &alone, message.at, out);
                alone.id
            }
            _ => self.ensure_prepared(id, server, taken, message.at, out),
        };
        self.expect_called(id, server, Kind::Parse, (NO_STATEMENT, name), taken.look.shape);
        // What the error says must not hang on what later batches make of the names.
        self.changed_names(server);
        self.renamed(id, message, name, number, HEADER, out)
    }

    /// Enters the reply to a message of the client's about a statement, which it calls so.
    pub(super) fn expect_called(&mut self, id: ClientId, server: ServerId, kind: Kind, what: (u32, &[u8]), shape: u64) {
        let (statement, name) = what;
        let entry = Expect {
            kind,
            origin: Origin::Client,
            owner: id.index(),
            statement,
            cookie: shape,
            sent_us: self.now_us,
            name: hashed(name),
            note: 0,
        };
        self.enter(id, server, entry);
    }
}
