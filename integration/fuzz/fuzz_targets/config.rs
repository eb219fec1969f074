//! The configuration on arbitrary text.
//! Must never panic, neither reading a text nor saying what is wrong with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir::config::{Config, parse_duration, parse_size};

fuzz_target!(|text: &str| {
    let _ = (parse_duration(text), parse_size(text));
    let _ = Config::from_urls(text, &[]);
    // A text may name files to be read (certificates, passwords): none that could block.
    if text.contains("file") {
        return;
    }
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            assert!(!config.databases.is_empty() && !config.users.is_empty(), "an empty configuration was accepted");
            assert!((0..=127).contains(&config.workers));
            assert_eq!(Config::parse(text, "fuzz.toml").ok(), Some(config), "not the same twice");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let shown = problems.to_string();
            assert!(shown.contains("fuzz.toml"), "a problem without its place");
            assert_eq!(problems.iter().count(), problems.len());
        }
    }
});
