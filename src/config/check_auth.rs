//! Checks of what concerns logins: `[auth]`, users, and TLS as far as it proves somebody.
//! Must never report a mere suspicion, nor show a secret.

use super::check::Check;
use super::model::{ChannelBinding, SslMode, TlsNegotiation};
use super::schema::RawDatabase;

impl Check<'_> {
    /// Notes what the TLS settings of a database rule out.
    pub(super) fn server_tls(&mut self, raw: &RawDatabase) {
        let Some(mode) = raw.server_tls_sslmode.word(SslMode::Prefer) else { return };
        let weak = matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        if raw.server_tls_negotiation.word(TlsNegotiation::Postgres) == Some(TlsNegotiation::Direct)
            && weak
            && let Some(span) = raw.server_tls_negotiation.span()
        {
            // libpq refuses it too: there is no way back to an unencrypted connection.
            let title = format!(
                "`server_tls_negotiation` cannot be \"direct\" when `server_tls_sslmode` is {:?}",
                mode.as_str()
            );
            self.reader.note(span, title, |problem| problem.expected(r#"server_tls_sslmode = "require" or stronger"#));
        }
        if raw.server_channel_binding.word(ChannelBinding::Prefer) == Some(ChannelBinding::Require)
            && mode == SslMode::Disable
            && let Some(span) = raw.server_channel_binding.span()
        {
            let title = "`server_channel_binding` cannot be \"require\" when `server_tls_sslmode` is \"disable\"";
            self.reader.note(span, title, |problem| problem.expected("TLS, whose certificate SCRAM is bound to"));
        }
    }
}
