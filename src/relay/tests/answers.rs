//! The model's answers to what pgweir asks about a session.
//! Must never know more of a session than PostgreSQL tells.

use super::*;

impl Backend {
    /// Answers what pgweir asks about the session.
    pub(super) fn tell(&mut self, question: &str) -> Done {
        let mut told: Vec<(String, Option<String>)> = Vec::new();
        if question.contains("pg_settings") {
            told.extend(self.settings.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        }
        if question.starts_with("SELECT 'n'") {
            let names = question.split("current_setting(E'").skip(1).map(|part| part.split('\'').next().unwrap());
            let columns = names.map(|name| self.settings.get(name).cloned());
            let columns: Vec<Option<String>> = std::iter::once(Some("n".to_owned())).chain(columns).collect();
            self.row(&columns);
            self.telling = true;
            return Done::Tag("SELECT 1".into());
        }
        for name in question.split("ARRAY[E'").skip(1).flat_map(|part| part.split("']").next().unwrap().split("',E'")) {
            let value = self.settings.get(name).cloned();
            if !matches!(name, "role" | "session_authorization") {
                told.push((name.to_owned(), value));
            }
        }
        if self.listening && question.contains("pg_listening_channels") {
            told.push((String::new(), None));
        }
        for (name, value) in &told {
            let kind = if name.is_empty() { "l" } else { "s" };
            self.row(&[Some(kind.to_owned()), Some(name.clone()), value.clone(), None]);
        }
        self.telling = true;
        Done::Tag(format!("SELECT {}", told.len()))
    }

    fn row(&mut self, columns: &[Option<String>]) {
        build::message(&mut self.out, server::DATA_ROW, |out| {
            out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
            for column in columns {
                out.extend_from_slice(&column.as_ref().map_or(-1, |text| text.len() as i32).to_be_bytes());
                out.extend_from_slice(column.as_deref().unwrap_or_default().as_bytes());
            }
        });
    }
}
